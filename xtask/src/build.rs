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
        let mut cargo = shell::cargo("build");
        cargo.args([
            "--quiet",
            "--release",
            "--package",
            "orch-user",
            "--bin",
            "orch",
        ]);
        shell::run(&mut cargo)
    })
}

/// Builds the demo service.
pub(crate) fn acts() -> Result<(), Error> {
    example("acts")
}

/// Builds an example as a static program, which runs in an empty image and on any host.
pub(crate) fn example(name: &str) -> Result<(), Error> {
    let product = paths::example(name);
    step(&format!("example {name}"), &product, || {
        let target = host_target()?;
        let mut cargo = shell::cargo("build");
        cargo.args(["--quiet", "--release", "--package", name]);
        cargo.args(["--target", &target]);
        // With `--target` the flags do not reach build scripts, which must stay dynamic.
        cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
        cargo.env_remove("RUSTFLAGS");
        shell::run(&mut cargo)?;
        let built = paths::target().join(target).join("release").join(name);
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
    let next = to.with_extension("next");
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
