//! `taskrun-operator crds`: the CRDs as they ship in `crds/`.

use crate::crd::custom_resource_definitions;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

/// Where the YAML goes.
#[derive(clap::Args)]
pub struct CrdsArgs {
    /// Folder to write one file a kind into, instead of printing all
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

/// Prints all as YAML documents, or writes each into its file.
pub fn run(args: &CrdsArgs) -> Result<(), Box<dyn Error>> {
    for crd in custom_resource_definitions() {
        let yaml = format!("# Generated from src/crd/ by `make generate`.\n{}", serde_saphyr::to_string(&crd)?);
        match &args.output {
            None => print!("---\n{yaml}"),
            Some(folder) => fs::write(folder.join(format!("{}.yaml", crd.spec.names.plural)), yaml)?,
        }
    }
    Ok(())
}
