//! Compiles the .proto files without protoc: messages and traits by tonic, the two bindings by `bindings`.

mod bindings;

use std::error::Error;
use std::path::{Path, PathBuf};

const FILES: [&str; 5] = [
    "haystore/v1/types.proto",
    "haystore/v1/volume.proto",
    "haystore/v1/filer.proto",
    "haystore/v1/master.proto",
    "haystore/v1/raft.proto",
];

#[expect(clippy::print_stdout, reason = "how a build script speaks to cargo")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build");
    let include = Path::new("proto");
    let files: Vec<_> = FILES.iter().map(|file| include.join(file)).collect();
    let descriptors = protox::compile(&files, [include])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("bindings.rs"), bindings::generate(&descriptors))?;
    tonic_prost_build::configure().bytes(".").emit_rerun_if_changed(false).compile_fds(descriptors)?;
    Ok(())
}
