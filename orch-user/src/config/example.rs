//! The documented example: every key with its default and a sentence. `orch check --example`
//! prints it.

/// A whole `orch.toml`.
pub const EXAMPLE: &str = r#"# What `orch run` does when this file says nothing else: every key has its default here, but those of
# [service.backend] that say what to run.

state_dir  = "/var/lib/orch"           # what must survive a restart
control    = "/run/orch/orch.sock"     # unix socket of the verbs, mode 0600
status     = "127.0.0.1:9180"          # status page, API, metrics; "" turns it off
token_file = ""                        # a file with the token for changes at status; "": only by the socket

[dataplane]
interfaces = ["auto"]                  # uplinks: where outsiders come from
local      = "auto"                    # clients on this host: auto | connect | packet | off
delivery   = "auto"                    # how a connection reaches its backend: auto | direct | port
relay      = "auto"                    # mode http: past TCP between gateway and copies: auto | off
flows      = 262144                    # connections remembered, 65536 at the least
pin_dir    = "/sys/fs/bpf/orch"        # where the kernel programs and maps are pinned

[[service]]
name         = "acts"                  # at most 40 letters, digits, '-' and '_'
listen       = "80"                    # "80", "10.0.0.1:80", "[::]:80"
mode         = "tcp"                   # tcp | http
balance      = "round_robin"           # round_robin | least_connections | source_ip
weights      = []                      # by slot, 1 to 100: [3, 1] gives slot 0 three of four; 1 for the rest
slow_start   = "0s"                    # a new slot comes to its share of connections over this time; 0s: at once
start_port   = 8000                    # slot k has port start_port + k
publish      = "none"                  # none | localhost | all: have Docker publish the slot ports too
expose_slots = false                   # may outsiders reach slot ports past the balancer?
hold         = "30s"                   # how long a connection waits for a copy while there is none; 0s: refused
hold_limit   = 1024                    # connections that may wait at a time

[service.backend]
runtime     = "auto"                   # auto | docker | process; auto: docker if there is an image
image       = "acts:demo"              # docker
command     = []                       # docker: overrides CMD; process: the program, with {port} replaced
port        = 8080                     # the port inside the container
env         = {}                       # environment
volumes     = []                       # "name:/path", shared by all backends
memory      = ""                       # limit, "128MiB"; "" is none
cpus        = 0.0                      # limit; 0.0 is none
drain_limit = "30s"                    # how long open connections may take to finish before a stop
stop_grace  = "10s"                    # between SIGTERM and SIGKILL

[service.health]
path            = "/"                  # GET of it must answer 200
interval        = "1s"                 # between two probes of one backend
timeout         = "900ms"              # shorter than the interval
unhealthy_after = 2                    # refused or timed out in a row; an answered non-200 counts at once
start_limit     = "30s"                # longest time to the first 200

[service.count]
prefix  = "/"                          # which requests count: paths that begin so
exclude = []                           # but not these, nor what lies below them

[service.http]
routes          = []                   # mode http: paths that go to the copies begin so; []: count.prefix
wait            = "10s"                # how long a request waits for a copy where none is ready
waiting         = 1024                 # how many requests may wait so
header_timeout  = "10s"                # for the whole head of a request
body_timeout    = "30s"                # between two pieces of a body, and for 256 bytes of a client's
idle_timeout    = "75s"                # between two requests of a connection
connect_timeout = "1s"                 # to reach a copy
answer_timeout  = "60s"                # for the head of a copy's answer
max_header      = "32KiB"              # size of a request's head
max_headers     = 100                  # its header lines
max_connections = 16384                # open at a time
proxy_protocol  = false                # clients come through a proxy that sends the PROXY protocol

[service.http.tls]
listen      = ""                       # "443", "10.0.0.1:443"; "" is no TLS
certificate = ""                       # file in PEM, with its chain; read again when it changes
key         = ""                       # file in PEM

[service.scale]
policy               = "step"          # step | target | concurrency | elastic | heuristic | schedule | manual
interval             = "2m"            # step: the window; it starts at the first counted request
requests_per_replica = 20              # step: copies = floor(requests in the window / this) + 1
min                  = 1               # fewest copies; 0: none until somebody connects
max                  = 10              # most copies
spares               = 0               # ready backends without a slot
spare_kind           = "gated"         # running | frozen | gated
idle                 = "0s"            # with min = 0: scale to zero after this long without a request; 0s: never
max_surge            = 0               # most copies that may be starting at a time; 0: as many as are wanted
target               = 0.7             # policy target: how busy copies should be
tolerance            = 0.1             # target: a ratio to it so near to 1 changes nothing
sync                 = "15s"           # target: between two decisions
stabilisation        = "5m"            # target: a need must be gone for so long before copies go
concurrency          = 1.0             # policy concurrency: requests in flight that one copy can have
window               = "1m"            # concurrency: the stable window; the panic window is a tenth of it
program              = []              # policy heuristic: gets the metrics as JSON, prints how many copies more or fewer
program_interval     = "1s"            # heuristic: between two questions
program_timeout      = "900ms"         # heuristic: longest time for an answer
schedule             = []              # policy schedule: floors, "mon-fri 08:00-18:00 4" (UTC)
"#;
