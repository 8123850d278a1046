//! A certificate that somebody else renews, in a folder: a Secret that is mounted, or files on a machine.

use super::{Known, Rotator};
use crate::certificate::Pair;
use futures::Stream;
use futures::channel::mpsc::{UnboundedReceiver, unbounded};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::fs;
use std::io;
use std::path::Path;

/// Ends when it is dropped.
pub type Watch = RecommendedWatcher;

/// Tells when something in a folder changes. The folder is watched and not its files, which the kubelet exchanges all
/// at once by a symbolic link; where it cannot be, it is only looked at now and then.
pub fn watch(folder: &Path) -> (Option<Watch>, impl Stream<Item = ()> + Send + use<>) {
    let (send, changes): (_, UnboundedReceiver<()>) = unbounded();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // we read the files ourselves
        if !event.is_ok_and(|event| event.kind.is_access()) {
            let _ = send.unbounded_send(());
        }
    });
    let watcher = watcher.and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    if let Err(error) = &watcher {
        tracing::warn!(%error, "failed to watch --cert-dir: looking into it every few seconds");
    }
    (watcher.ok(), changes)
}

impl Rotator {
    /// Takes in what the files hold.
    pub(super) fn read_files(&self, folder: &Path, known: &mut Known) {
        let (certificate, key) = match read(folder) {
            Ok(files) => files,
            Err(error) => return self.tell_broken(known, error.to_string().as_bytes(), &error),
        };
        match Pair::parse(&certificate, &key) {
            Ok(pair) => self.accept(known, pair),
            Err(problem) => self.tell_broken(known, &[certificate, key].concat(), &problem),
        }
    }
}

/// `tls.crt` and `tls.key`, both of one time: the kubelet's link is followed once.
fn read(folder: &Path) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let folder = fs::canonicalize(folder.join("..data")).unwrap_or_else(|_| folder.to_owned());
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    };
    Ok((read("tls.crt")?, read("tls.key")?))
}
