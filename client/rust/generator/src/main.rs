//! Generates the stubs: `pointsman-generator DESCRIPTORS OUT`, where DESCRIPTORS is a serialised FileDescriptorSet with
//! comments, and OUT the folder for the files. `make clients` runs it; no protoc is needed beyond the one that has made
//! the descriptors.

use std::{env, fs, path::PathBuf};

use prost::Message as _;
use tonic_prost_build::FileDescriptorSet;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let (Some(descriptors), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pointsman-generator DESCRIPTORS OUT".into());
    };
    let files = FileDescriptorSet::decode(fs::read(descriptors)?.as_slice())?;
    tonic_prost_build::configure().build_server(false).out_dir(out).compile_fds(files)?;
    Ok(())
}
