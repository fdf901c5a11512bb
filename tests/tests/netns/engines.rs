//! Containers of an engine that keeps their namespaces elsewhere than the usual one.

use std::{fs, net::TcpStream, path::PathBuf};

use orch::dataplane::Reach;
use orch_common::slot::SlotKey;
use orch_tests::{netns::run, wait::until};

use super::{
    VIP,
    containers::{Container, World},
};

/// A directory as an engine has it: a file per namespace, with the namespace mounted over it.
struct Engine {
    directory: PathBuf,
}

impl Engine {
    fn new() -> Self {
        let name = format!("orch-engine-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        Self { directory }
    }

    fn has(&self, container: &Container) -> PathBuf {
        let name = &container.netns.name;
        let file = self.directory.join(name);
        fs::write(&file, []).unwrap();
        let namespace = format!("/run/netns/{name}");
        run("mount", &["--bind", &namespace, file.to_str().unwrap()]);
        file
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            run("umount", &[entry.path().to_str().unwrap()]);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn its_containers_are_known_once_it_has_a_copy() {
    let mut world = World::new("engines");
    let client = Container::new(&world.host, "br0", 9);
    let reaches = |client: &Container| client.netns.within(|| TcpStream::connect(VIP).is_ok());
    assert!(!reaches(&client), "nobody knows that it is a container");
    let engine = Engine::new();
    engine.has(&client);
    let copy = &world.containers[0];
    let mut entry = copy.entry(0, 2);
    entry.reach = Reach::Direct {
        netns: engine.has(copy),
    };
    let (host, plane) = (&world.host, world.dataplane.as_mut().unwrap());
    let key = SlotKey {
        service: 0,
        slot: 0,
    };
    host.within(|| plane.set_slot(key, &entry)).unwrap();
    assert!(reaches(&client));
    let later = Container::new(&world.host, "br0", 10);
    engine.has(&later);
    until("one that comes later is known", || {
        reaches(&later).then_some(())
    });
}
