//! The programs that the other verbs run.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{docker, error::Error, paths, shell};

/// Builds the controller, with a line that says so.
pub(crate) fn orch() -> Result<(), Error> {
    step("controller", &paths::orch(), || {
        shell::run(&mut cargo_builds_orch())
    })
}

/// Builds the programs that test, all of them: what is to be compiled is compiled once and together.
pub(crate) fn tests() -> Result<(), Error> {
    step("test programs", Path::new("target/debug"), || {
        let mut cargo = shell::cargo("test");
        cargo.args(["--quiet", "--package", "orch-tests", "--no-run"]);
        shell::run(&mut cargo)
    })
}

/// What Cargo has to do for the programs that tests run, for who wants it done before they are asked
/// for.
pub(crate) fn programs() -> [Result<Command, Error>; 2] {
    [cargo_builds_example("acts"), Ok(cargo_builds_orch())]
}

fn cargo_builds_orch() -> Command {
    let mut cargo = shell::cargo("build");
    cargo.args(["--quiet", "--release"]);
    cargo.args(["--package", "orch-user", "--bin", "orch"]);
    cargo
}

fn cargo_builds_example(name: &str) -> Result<Command, Error> {
    let mut cargo = shell::cargo("build");
    cargo.args(["--quiet", "--release", "--package", name]);
    cargo.args(["--target", &host_target()?]);
    // With `--target` the flags do not reach build scripts, which must stay dynamic.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    cargo.env_remove("RUSTFLAGS");
    Ok(cargo)
}

/// Builds the demo service.
pub(crate) fn acts() -> Result<(), Error> {
    example("acts")
}

/// Builds an example as a static program, which runs in an empty image and on any host.
pub(crate) fn example(name: &str) -> Result<(), Error> {
    let product = paths::example(name);
    step(&format!("example {name}"), &product, || {
        shell::run(&mut cargo_builds_example(name)?)?;
        let built = paths::target().join(host_target()?);
        let built = built.join("release").join(name);
        install(&built, &product)
    })
}

/// Builds the demo service's image.
pub(crate) fn acts_image() -> Result<(), Error> {
    image("acts")
}

/// Builds the image of an example that is built.
pub(crate) fn image(name: &str) -> Result<(), Error> {
    let tag = docker::image(name);
    step("image", Path::new(&tag), || docker::build_image(name))
}

/// Puts a file where another may be running: the running program keeps its own file.
fn install(from: &Path, to: &Path) -> Result<(), Error> {
    let at = |source| Error::File {
        path: to.to_owned(),
        source,
    };
    // Others may be at the same: long rungs have processes of their own.
    let next = to.with_extension(format!("next{}", std::process::id()));
    fs::create_dir_all(to.parent().unwrap_or(to)).map_err(at)?;
    fs::copy(from, &next).map_err(at)?;
    fs::rename(&next, to).map_err(at)
}

fn host_target() -> Result<String, Error> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    shell::output(Command::new(rustc).args(["--print", "host-tuple"]))
}

fn step(
    what: &str,
    product: &Path,
    build: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let begin = Instant::now();
    let first = product.is_absolute() && !product.exists();
    let patience = if first {
        " (the first time takes minutes)"
    } else {
        ""
    };
    eprint!("  building  {what}{patience} ... ");
    build().inspect_err(|_| eprintln!("failed"))?;
    eprintln!("{} ({})", paths::short(product), seconds(begin.elapsed()));
    Ok(())
}

/// A duration as people read it.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
