//! Files in, configuration or messages out.

use std::collections::BTreeSet;

use super::{Balance, EXAMPLE, SpareKind, parse, problem::Sink, raw::RawConfig};

/// The least there is to say.
const LEAST: &str = "[[service]]\nbackend.image = \"acts:demo\"\n";

#[test]
fn the_example_equals_the_defaults() {
    let example = parse("example", EXAMPLE).unwrap();
    assert_eq!(example, parse("least", LEAST).unwrap());
}

#[test]
fn the_example_has_every_key() {
    let sink = Sink::default();
    let (_, keys) = RawConfig::parse_with_keys(EXAMPLE, &sink);
    let known: BTreeSet<_> = keys.into_iter().collect();
    let mut written = BTreeSet::new();
    let mut section = String::new();
    for line in EXAMPLE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']).to_owned();
            written.insert(section.clone());
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let key = key.trim();
            let dot = if section.is_empty() { "" } else { "." };
            written.insert(format!("{section}{dot}{key}"));
        }
    }
    assert_eq!(written, known);
}

#[test]
fn values_arrive() {
    let text = r#"
        status = ""
        [dataplane]
        interfaces = ["eth0", "eth1"]
        [[service]]
        name = "api"
        listen = "[::]:443"
        publish = "localhost"
        backend = { command = ["/bin/server", "{port}"], memory = "128MiB", cpus = 2, volumes = ["db:/data"] }
        health.timeout = "250ms"
        count.exclude = ["/healthz"]
    "#;
    let config = parse("values", text).unwrap();
    let service = &config.services[0];
    assert_eq!(config.status, None);
    assert_eq!(service.listen.address, Some("::".parse().unwrap()));
    assert_eq!(service.listen.port, 443);
    assert_eq!(service.backend.memory, 128 << 20);
    assert!((service.backend.cpus - 2.0).abs() < f64::EPSILON);
    assert_eq!(service.backend.volumes[0].target, "/data");
    assert_eq!(service.health.timeout.as_millis(), 250);
    assert_eq!(service.count.exclude, ["/healthz"]);
}

/// A bad service in, its messages out, one per line; the first line of the text is line 1.
#[track_caller]
fn check(text: &str, expect: &[&str]) {
    let message = parse("orch.toml", text).unwrap_err().to_string();
    let got: Vec<_> = message.lines().skip(1).collect();
    assert_eq!(got, expect, "for\n{text}");
}

/// Like `check`, for keys below one service that is well but for them.
#[track_caller]
fn check_service(keys: &str, expect: &[&str]) {
    check(&format!("{LEAST}{keys}"), expect);
}

#[test]
fn unknown_keys_name_the_nearest() {
    check_service(
        "scale.intervall = \"1m\"",
        &[
            "orch.toml:3: service[0].scale.intervall: unknown key; the nearest known key is `interval`",
        ],
    );
    check(
        "[servise]\n[[service]]\nbackend.image = \"a\"",
        &["orch.toml:1: servise: unknown key; the nearest known key is `service`"],
    );
}

#[test]
fn keys_below_the_wrong_heading_are_sent_home() {
    check(
        "[[service]]\nmin = 2\ninterval = \"5s\"\n[service.backend]\nimage = \"a\"\nstart_port = 9000",
        &[
            "orch.toml:2: service[0].min: unknown key here; it belongs in [service.scale]",
            "orch.toml:3: service[0].interval: unknown key here; it belongs in [service.health] or in [service.scale]",
            "orch.toml:6: service[0].backend.start_port: unknown key here; it belongs in [[service]]",
        ],
    );
    check(
        "[dataplane]\nstatus = \"\"\n[[service]]\nbackend.image = \"a\"",
        &["orch.toml:2: dataplane.status: unknown key here; it belongs above the first table"],
    );
}

#[test]
fn no_file_makes_it_panic() {
    let pieces = [
        "",
        "=",
        "[",
        "]]",
        "\"",
        "\u{1F980}",
        "{",
        "-1",
        "\"\"",
        "99999999999999999999",
    ];
    for end in (0..EXAMPLE.len()).filter(|end| EXAMPLE.is_char_boundary(*end)) {
        let (before, after) = EXAMPLE.split_at(end);
        let piece = pieces[end % pieces.len()];
        let _ = parse("cut", &format!("{before}{piece}"));
        if end % 7 == 0 {
            let _ = parse("torn", &format!("{before}{piece}{after}"));
        }
    }
}

#[test]
fn wrong_types_say_what_is_wanted() {
    check_service(
        "start_port = \"8000\"\nexpose_slots = 1\nname = 7\ncount.exclude = [1]",
        &[
            "orch.toml:3: service[0].start_port: must be an integer, not a string",
            "orch.toml:4: service[0].expose_slots: must be true or false, not an integer",
            "orch.toml:5: service[0].name: must be a string, not an integer",
            "orch.toml:6: service[0].count.exclude: must be an array of strings",
        ],
    );
    check(
        "[service]\nname = \"a\"",
        &["orch.toml:1: service: must be an array of tables: write [[service]]"],
    );
}

#[test]
fn all_problems_come_at_once() {
    check(
        "state_dir = \"here\"\nstatus = \"9180\"\n[[service]]\nname = \"a b\"\nlisten = \"eighty\"\n\
         scale.min = 5\nscale.max = 3\nhealth = 3\nbackend.image = \n",
        &[
            "orch.toml:1: state_dir: must be an absolute path, not \"here\"",
            "orch.toml:2: status: \"9180\" is not an address with a port: write \"127.0.0.1:9180\", or \"\" to turn it off",
            "orch.toml:4: service[0].name: \"a b\" cannot be a name: letters, digits, '-' and '_', a letter or digit first",
            "orch.toml:5: service[0].listen: \"eighty\" is not a listening address: write \"80\", \"10.0.0.1:80\" or \"[::]:80\"",
            "orch.toml:6: service[0].scale.min: min = 5 is above max = 3",
            "orch.toml:8: service[0].health: must be a table, not an integer",
            "orch.toml:9: string values must be quoted, expected literal string",
        ],
    );
}

#[test]
fn what_this_version_lacks_is_said() {
    check_service(
        "mode = \"tcp\"\nscale.spares = 1\nscale.policy = \"pid\"\n\
         balance = \"maglev\"\n[dataplane]\nlocal = \"packet\"",
        &[
            "orch.toml:5: service[0].scale.policy: must be \"step\" or \"target\" or \"concurrency\" or \"elastic\" or \"heuristic\" or \"schedule\" or \"manual\", not \"pid\"",
            "orch.toml:6: service[0].balance: must be \"round_robin\" or \"least_connections\" or \"source_ip\", not \"maglev\"",
            "orch.toml:8: dataplane.local: \"packet\" is not in this version yet: \"auto\" or \"connect\" or \"off\"",
        ],
    );
}

#[test]
fn scaling_to_zero_needs_connections_that_wait() {
    let config = parse(
        "zero",
        &format!("{LEAST}scale = {{ min = 0, idle = \"5m\" }}\n"),
    )
    .unwrap();
    let service = &config.services[0];
    assert_eq!((service.scale.min, service.scale.idle.as_secs()), (0, 300));
    assert_eq!((service.hold.as_secs(), service.hold_limit), (30, 1024));
    check_service(
        "scale.min = 0\nhold = \"0s\"",
        &[
            "orch.toml:4: service[0].hold: with min = 0 a copy starts when somebody connects and waits: give hold a time, as \"30s\"",
        ],
    );
    check_service(
        "scale.idle = \"5m\"\nscale.min = -1",
        &["orch.toml:4: service[0].scale.min: must be from 0 to 64, not -1"],
    );
    check_service(
        "scale.idle = \"5m\"",
        &[
            "orch.toml:3: service[0].scale.idle: is for services that may have no copy: write min = 0 as well, or idle = \"0s\"",
        ],
    );
}

#[test]
fn ways_to_choose() {
    let service = |lines: &str| {
        let config = parse(
            "choices",
            &format!("[[service]]\nname = \"a\"\n{lines}\nbackend.image = \"b\"\n"),
        );
        config.unwrap().services.remove(0)
    };
    let least = service("balance = \"least_connections\"\nweights = [3, 1]");
    assert_eq!(least.balance, Balance::LeastConnections);
    assert_eq!(least.weights, [3, 1]);
    assert_eq!(
        service("balance = \"source_ip\"").balance,
        Balance::SourceIp
    );
    check_service(
        "weights = [1, 0, 101]\nscale.max = 2",
        &[
            "orch.toml:3: service[0].weights: has 3 weights, and the service has 2 slots at the most (scale.max)",
            "orch.toml:3: service[0].weights[1]: must be from 1 to 100, not 0",
            "orch.toml:3: service[0].weights[2]: must be from 1 to 100, not 101",
        ],
    );
    assert_eq!(service("slow_start = \"30s\"").slow_start.as_secs(), 30);
    check_service(
        "slow_start = \"30s\"\nbalance = \"source_ip\"",
        &[
            "orch.toml:3: service[0].slow_start: balance \"source_ip\" would send clients from one slot to another as shares change: leave it at \"0s\"",
        ],
    );
    check_service(
        "slow_start = \"30s\"\nmode = \"http\"",
        &[
            "orch.toml:3: service[0].slow_start: mode \"http\" gives each request to the next slot: leave it at \"0s\"",
        ],
    );
    check_service(
        "weights = 3",
        &["orch.toml:3: service[0].weights: must be an array of integers, not an integer"],
    );
}

#[test]
fn direct_is_for_containers() {
    let direct = "[dataplane]\ndelivery = \"direct\"\n";
    assert!(parse("containers", &format!("{direct}{LEAST}")).is_ok());
    check(
        &format!("{direct}[[service]]\nname = \"a\"\nbackend.command = [\"/bin/a\"]\n"),
        &[
            "orch.toml:2: dataplane.delivery: \"direct\" is for containers, and service a runs processes: write \"auto\"",
        ],
    );
}

#[test]
fn spares_need_containers_that_are_reached_directly() {
    let spares = "scale = { spares = 2, spare_kind = \"frozen\" }\n";
    let config = parse("spares", &format!("{LEAST}{spares}")).unwrap();
    let scale = &config.services[0].scale;
    assert_eq!((scale.spares, scale.spare_kind), (2, SpareKind::Frozen));
    let config = parse("spares", &format!("{LEAST}scale.spares = 1\n")).unwrap();
    assert_eq!(config.services[0].scale.spare_kind, SpareKind::Gated);
    check_service(
        &format!("publish = \"all\"\n{spares}"),
        &[
            "orch.toml:4: service[0].scale.spares: spares need publish = \"none\": Docker cannot publish a slot's port for a container that has no slot yet",
        ],
    );
    check_service(
        &format!("{spares}[dataplane]\ndelivery = \"port\""),
        &[
            "orch.toml:3: service[0].scale.spares: spares need direct delivery, and the file says delivery = \"port\"",
        ],
    );
    check(
        &format!("[[service]]\nbackend.command = [\"/bin/a\"]\n{spares}"),
        &[
            "orch.toml:3: service[0].scale.spare_kind: a process listens on its slot's port as soon as it runs, so a spare can only wait to begin: write \"gated\"",
        ],
    );
}

#[test]
fn values_out_of_range() {
    check_service(
        "start_port = 70000\nscale.max = 65\nscale.requests_per_replica = 0\nscale.interval = \"soon\"\n\
         health.timeout = \"1s\"\nhealth.path = \"health\"\ncount.prefix = \"api\"\nbackend.volumes = [\"a:b\"]\n\
         backend.memory = \"lots\"\nbackend.cpus = -1\n[dataplane]\nflows = 10",
        &[
            "orch.toml:3: service[0].start_port: must be from 1 to 65535, not 70000",
            "orch.toml:4: service[0].scale.max: must be from 1 to 64, not 65",
            "orch.toml:5: service[0].scale.requests_per_replica: must be at least 1, not 0",
            "orch.toml:6: service[0].scale.interval: \"soon\" is not a duration: write \"900ms\", \"10s\" or \"2m\"",
            "orch.toml:7: service[0].health.timeout: 1s must be shorter than the interval, which is 1s",
            "orch.toml:8: service[0].health.path: must start with '/', unlike \"health\"",
            "orch.toml:9: service[0].count.prefix: must start with '/', unlike \"api\"",
            "orch.toml:10: service[0].backend.volumes[0]: \"a:b\" is not a volume: write \"name:/path\"",
            "orch.toml:11: service[0].backend.memory: \"lots\" is not a size: write \"128MiB\" or \"2GiB\", or \"\" for no limit",
            "orch.toml:12: service[0].backend.cpus: must be from 0.0 (no limit) to 4096.0",
            "orch.toml:14: dataplane.flows: must be from 65536 to 16777216, not 10",
        ],
    );
}

#[test]
fn what_nobody_waits_for_is_refused() {
    let keys = [
        "backend.drain_limit",
        "health.interval",
        "scale.interval",
        "hold",
    ];
    for key in keys {
        for text in ["18446744073709551615s", "36501days"] {
            let line = format!("{key} = {text:?}");
            let expected =
                format!("orch.toml:3: service[0].{key}: {text:?} is longer than a century");
            check_service(&line, &[&expected]);
        }
    }
}

#[test]
fn what_no_process_can_be_told_is_refused() {
    check(
        "[[service]]\nbackend.command = [\"/bin/a\", \"a\\u0000b\"]\nbackend.env = { A = \"\\u0000\" }\n",
        &[
            "orch.toml:2: service[0].backend.command[1]: no argument can have a zero byte",
            "orch.toml:3: service[0].backend.env: \"A\" cannot have a zero byte in its text",
        ],
    );
}

#[test]
fn what_no_host_can_keep_is_refused() {
    check_service(
        "listen = \"224.0.0.1:80\"\nbackend.memory = \"1B\"\nbackend.cpus = 1e300",
        &[
            "orch.toml:3: service[0].listen: \"224.0.0.1:80\" is not a listening address: write \"80\", \"10.0.0.1:80\" or \"[::]:80\"",
            "orch.toml:4: service[0].backend.memory: is less than Docker takes: write \"6MiB\" or more, or \"\" for no limit",
            "orch.toml:5: service[0].backend.cpus: must be from 0.0 (no limit) to 4096.0",
        ],
    );
}

#[test]
fn a_limit_of_processors_is_one_that_docker_takes() {
    check_service(
        "backend.cpus = 0.001",
        &[
            "orch.toml:3: service[0].backend.cpus: is less than Docker takes: write 0.01 or more, or 0.0 for no limit",
        ],
    );
}

#[test]
fn services_must_not_meet() {
    let service = |keys: &str| format!("[[service]]\nbackend.image = \"a\"\n{keys}\n");
    check(
        &(service("name = \"a\"")
            + &service("name = \"a\"\nlisten = \"10.0.0.1:80\"\nstart_port = 8009")),
        &[
            "orch.toml:6: service[1].name: \"a\" is the name of an earlier service",
            "orch.toml:7: service[1].listen: 10.0.0.1:80 is where service a listens already",
            "orch.toml:8: service[1].start_port: slot ports 8009 to 8018 overlap those of service a, 8000 to 8009",
        ],
    );
    check(
        &service("start_port = 9175"),
        &[
            "orch.toml:3: service[0].start_port: slot ports 9175 to 9184 contain the status address's port",
        ],
    );
    check(
        &service("start_port = 65530"),
        &["orch.toml:3: service[0].start_port: slot ports 65530 to 65539 go past 65535"],
    );
    check(
        &service("start_port = 75"),
        &[
            "orch.toml:3: service[0].start_port: slot ports 75 to 84 contain 80, where service acts listens",
        ],
    );
}

#[test]
fn something_must_run() {
    check(
        "",
        &["orch.toml: service: there is none: write at least one [[service]]"],
    );
    check(
        "[[service]]",
        &[
            "orch.toml:1: service[0].backend: nothing to run: set image (docker) or command (process)",
        ],
    );
    check_service(
        "backend.runtime = \"process\"",
        &["orch.toml: service[0].backend.command: runtime = \"process\" needs a command"],
    );
}

#[test]
fn the_parser_s_trouble_is_told_once() {
    let error = parse("broken", "status = [\n[[service\n")
        .unwrap_err()
        .to_string();
    let told = error.matches("unclosed array").count();
    assert_eq!(told, 1, "{error}");
}
