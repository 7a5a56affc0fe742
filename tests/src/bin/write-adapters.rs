//! `write-adapters OUT BASE...` writes adapters of many configurations over each base to folders in
//! OUT, each with its inputs and outputs beside it, and prints their list as JSON.

use std::path::PathBuf;

use anyhow::{Result, bail};
use burn::tensor::Device;
use peft_tests::adapters::write_all;

fn main() -> Result<()> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [out, bases @ ..] = &paths[..] else { bail!("write-adapters OUT BASE...") };
    let (registry, device) = (peft::registry(), Device::default());
    let mut written = Vec::new();
    for base in bases {
        written.extend(write_all(base, out, &registry, &device)?);
    }
    println!("{}", serde_json::to_string_pretty(&written)?);
    Ok(())
}
