//! Whether connections wait while a service has no copy.

use super::Finding;
use crate::{
    config::{Config, Local, ServiceConfig},
    dataplane::cgroup2_root,
};

const WHAT: &str = "waiting";

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let here = config.dataplane.local != Local::Off && matches!(cgroup2_root(), Ok(Some(_)));
    let judge = |service| judge(service, here);
    config.services.iter().map(judge).collect()
}

/// `here` is whether clients on this host are balanced at all.
fn judge(service: &ServiceConfig, here: bool) -> Finding {
    let (name, hold) = (&service.name, service.hold);
    if hold.is_zero() {
        let meaning = format!("{name} refuses connections while it has no copy that is ready");
        return Finding::ok(WHAT, meaning);
    }
    let sleeps = if service.scale.min == 0 {
        ", and the first starts one"
    } else {
        ""
    };
    let meaning = format!("connections to {name} wait up to {hold:?} while it has no copy{sleeps}");
    if here {
        return Finding::ok(WHAT, meaning);
    }
    let meaning = format!("{meaning}; those of this host do not: they are not balanced");
    if service.scale.min == 0 {
        let cure = "mount cgroup2 and write local = \"auto\", or connect from outside";
        return Finding::warn(WHAT, meaning, cure);
    }
    Finding::ok(WHAT, meaning)
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};
    use crate::config::Source;

    #[test]
    fn a_sleeper_that_this_host_cannot_wake_is_worth_a_warning() {
        let mut service = Source::Image("a".to_owned())
            .load()
            .unwrap()
            .services
            .remove(0);
        assert_eq!(judge(&service, false).level, Level::Ok);
        service.scale.min = 0;
        assert_eq!(judge(&service, true).level, Level::Ok);
        assert!(
            judge(&service, true)
                .meaning
                .contains("the first starts one")
        );
        assert_eq!(judge(&service, false).level, Level::Warn);
        service.hold = std::time::Duration::ZERO;
        assert!(judge(&service, false).meaning.contains("refuses"));
    }
}
