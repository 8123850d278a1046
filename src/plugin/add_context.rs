//! `kubectl taskrun add-context`: one more file for a task.

use super::error::Error;
use super::object::full_name;
use super::submit::read_text;
use super::{TaskArg, in_namespace};
use crate::client::{Added, Tasks};
use crate::task::{Held, MAX_REQUEST_ID, is_request_id};
use clap::Args;
use clap::builder::ValueHint;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use uuid::Uuid;

/// What `add-context` takes.
#[derive(Args)]
#[command(after_help = "All that is given becomes one file and one version; the version that runs is ended first.

Examples:
  kubectl taskrun add-context 7 -m 'Use the token format of RFC 9068.'
  kubectl taskrun add-context 7 review.md
  gh pr view 12 --comments | kubectl taskrun add-context 7 - --request-id pr-12-round-1")]
pub struct AddContextArgs {
    #[command(flatten)]
    task: TaskArg,
    /// Files with markdown; - is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// Markdown, before that of files
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// A name for this request: as often as it is repeated, it adds once. Otherwise a random one
    #[arg(long, value_name = "KEY", value_parser = request_id)]
    request_id: Option<String>,
}

/// Adds the text.
pub async fn run(args: AddContextArgs, tasks: &Tasks) -> Result<ExitCode, Error> {
    // a file ends with its last line's end
    let mut texts: Vec<String> = args.message.into_iter().map(|message| message + "\n").collect();
    for path in &args.files {
        texts.push(read_text(path)?);
    }
    if texts.is_empty() {
        return Err(Error::Input("nothing to add: name a FILE, - for standard input, or say -m TEXT".to_owned()));
    }
    let request_id = args.request_id.unwrap_or_else(|| Uuid::new_v4().to_string());
    match tasks.add_context(&args.task.task, &together(&texts), &request_id, None).await {
        Ok(added) => writeln!(stdout(), "{} {}", full_name(&added.name), sentence(&added))?,
        Err(error) => return Err(in_namespace(tasks, error).await),
    }
    Ok(ExitCode::SUCCESS)
}

/// One text, with an empty line between its parts.
fn together(texts: &[String]) -> String {
    match texts {
        [only] => only.clone(),
        several => several.iter().map(|text| text.trim_end()).collect::<Vec<_>>().join("\n\n") + "\n",
    }
}

fn sentence(added: &Added) -> String {
    let Added { name, filename, version, .. } = added;
    let what = match added.created {
        true => format!("version {version}: added {filename}"),
        false => format!("unchanged: this request added {filename} before, as version {version}"),
    };
    match added.held {
        Some(Held::Cancelled) => {
            format!("{what}; it is cancelled and does not run before \"kubectl taskrun rerun {name}\"")
        }
        Some(Held::Suspended) => {
            format!("{what}; it is suspended and does not run before \"kubectl taskrun resume {name}\"")
        }
        Some(Held::Waiting) => format!("{what}; it runs when the run that goes on has ended"),
        None => what,
    }
}

fn request_id(text: &str) -> Result<String, String> {
    match is_request_id(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("must have 1 to {MAX_REQUEST_ID} visible ASCII characters")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_what_was_added_and_what_holds_it() {
        let added = |created, held| Added {
            name: "task-7".into(),
            filename: "context-v3.md".into(),
            version: 3,
            created,
            held,
        };
        assert_eq!(sentence(&added(true, None)), "version 3: added context-v3.md");
        assert!(sentence(&added(false, None)).ends_with("this request added context-v3.md before, as version 3"));
        assert!(sentence(&added(true, Some(Held::Cancelled))).contains("rerun task-7"));
        assert!(sentence(&added(true, Some(Held::Suspended))).contains("resume task-7"));
    }

    #[test]
    fn parts_are_put_together_and_one_alone_stays_as_it_is() {
        assert_eq!(together(&["a".into()]), "a");
        assert_eq!(together(&["a\n\n".into(), "b".into()]), "a\n\nb\n");
    }
}
