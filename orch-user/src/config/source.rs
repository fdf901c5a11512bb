//! Where a configuration comes from: a file, or a command line that names what to run.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use super::{
    Config, ConfigError, check,
    problem::{At, Sink},
    raw::RawConfig,
};

/// The file that is taken where none is named.
pub const DEFAULT_FILE: &str = "orch.toml";

/// Bytes that a file may have.
const LARGEST: u64 = 1 << 20;
/// How long a controller waits for its file: it may be a pipe, or on a server that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a configuration comes from. Kept, so that a reload reads the same again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Defaults, with this image.
    Image(String),
    /// Defaults, with this program and its arguments.
    Program(Vec<String>),
}

impl Source {
    /// Reads and checks it.
    pub fn load(&self) -> Result<Config, ConfigError> {
        match self {
            Self::File(path) => load_file(path),
            Self::Image(image) => defaults(image, Some(image), &[]),
            Self::Program(command) => {
                let program = command.first().map_or("", String::as_str);
                defaults(program, None, command)
            }
        }
    }

    /// The same for a loop that must not wait: an error if it takes longer than five seconds.
    pub async fn load_aside(&self) -> Result<Config, ConfigError> {
        let (sender, loaded) = oneshot::channel();
        let source = self.clone();
        // A thread of its own: the runtime's own ones are waited for when the program ends.
        let read = move || drop(sender.send(source.load()));
        let reads = thread::Builder::new().spawn(read);
        let read = match reads {
            Ok(_) => timeout(PATIENCE, loaded).await,
            Err(error) => return Err(self.unread(error)),
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "nothing has come for 5 s");
        let gone = |_| io::Error::other("its reader has ended");
        let read = read.map_err(|_| late()).and_then(|read| read.map_err(gone));
        read.map_err(|error| self.unread(error))?
    }

    fn unread(&self, source: io::Error) -> ConfigError {
        let path = match self {
            Self::File(path) => path.clone(),
            Self::Image(_) | Self::Program(_) => PathBuf::new(),
        };
        ConfigError::Read { path, source }
    }
}

/// Reads and checks a file, and whether what it names can be read.
pub fn examine(path: &Path) -> Result<Config, ConfigError> {
    let text = read(path)?;
    let sink = Sink::default();
    let raw = RawConfig::parse(&text, &sink);
    check::files(&raw, &sink);
    finish(&path.display().to_string(), &raw, sink)
}

fn load_file(path: &Path) -> Result<Config, ConfigError> {
    parse(&path.display().to_string(), &read(path)?)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    read_whole(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

fn read_whole(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(LARGEST + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        let why = "it has more than 1 MiB, and is no configuration";
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(text)
}

/// Checks the text of a file; `file` is what problems call it.
pub fn parse(file: &str, text: &str) -> Result<Config, ConfigError> {
    let sink = Sink::default();
    let raw = RawConfig::parse(text, &sink);
    finish(file, &raw, sink)
}

fn defaults(
    named_after: &str,
    image: Option<&str>,
    command: &[String],
) -> Result<Config, ConfigError> {
    let sink = Sink::default();
    let mut raw = RawConfig::with_one_service(&sink);
    if let Some(service) = raw.services.first_mut() {
        service.name.value = base_name(named_after);
        image
            .unwrap_or_default()
            .clone_into(&mut service.backend.image.value);
        let item = |arg: &String| At {
            value: arg.clone(),
            key: service.backend.command.key.clone(),
            line: None,
        };
        service.backend.command.value = command.iter().map(item).collect();
    }
    finish("command line", &raw, sink)
}

fn finish(file: &str, raw: &RawConfig, sink: Sink) -> Result<Config, ConfigError> {
    let config = check::check(raw, &sink);
    if sink.is_empty() {
        return Ok(config);
    }
    Err(ConfigError::Invalid {
        file: file.to_owned(),
        problems: sink.into_problems(),
    })
}

/// A service's name from an image or a program: `ghcr.io/me/acts:demo` and `/usr/bin/acts` are
/// both `acts`.
fn base_name(of: &str) -> String {
    let last = of.trim_end_matches('/').rsplit('/').next().unwrap_or(of);
    let bare = last.split([':', '@']).next().unwrap_or(last);
    let fits = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
    let replace = |char: char| if fits(char) { char } else { '-' };
    let name: String = bare.chars().map(replace).take(40).collect();
    let name = name.trim_start_matches(['-', '_']);
    if name.is_empty() {
        "service".to_owned()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_images_and_programs() {
        for (from, name) in [
            ("acts:demo", "acts"),
            ("ghcr.io:5000/me/acts@sha256:00", "acts"),
            ("/usr/bin/my.server", "my-server"),
            ("./acts", "acts"),
            ("...", "service"),
        ] {
            assert_eq!(base_name(from), name, "{from}");
        }
    }

    #[test]
    fn what_never_ends_is_no_configuration() {
        let error = examine(Path::new("/dev/zero")).unwrap_err();
        let ConfigError::Read { source, .. } = error else {
            panic!("{error}");
        };
        assert!(source.to_string().contains("more than 1 MiB"), "{source}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_what_does_not_come() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("orch.toml");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = Source::File(pipe.clone()).load_aside().await.unwrap_err();
        let ConfigError::Read { path, source } = error else {
            panic!("{error}");
        };
        assert_eq!(path, pipe);
        assert!(source.to_string().contains("5 s"), "{source}");
        // Its reader ends with what a writer gives it.
        std::fs::write(&pipe, "[").unwrap();
    }

    #[test]
    fn an_image_or_a_program_is_enough() {
        let config = Source::Image("acts:demo".to_owned()).load().unwrap();
        assert_eq!(config.services[0].name, "acts");
        assert_eq!(
            config.services[0].backend.image.as_deref(),
            Some("acts:demo")
        );
        let words = ["python3", "-m", "http.server", "{port}"];
        let source = Source::Program(words.map(str::to_owned).to_vec());
        let config = source.load().unwrap();
        assert_eq!(config.services[0].name, "python3");
        assert_eq!(config.services[0].backend.command, words);
    }
}
