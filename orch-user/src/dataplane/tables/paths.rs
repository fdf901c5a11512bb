//! Which requests count, by the beginning of their paths?

use aya::maps::lpm_trie::Key;
use orch_common::{
    flow::Counting,
    layout::map,
    service::{PathKey, PathRule},
};

use super::{Tables, gone};
use crate::{
    config::{CountConfig, ServiceConfig},
    dataplane::DataplaneError,
};

impl Tables {
    pub(super) fn set_paths(&mut self, services: &[ServiceConfig]) -> Result<(), DataplaneError> {
        let mut wanted = Vec::new();
        for (index, service) in services.iter().enumerate() {
            wanted.extend(path_rules(index as u32, &service.count));
        }
        let known: Vec<Key<PathKey>> = self.paths.keys().flatten().collect();
        for (key, rule) in &wanted {
            self.paths
                .insert(key, rule, 0)
                .map_err(DataplaneError::map(map::PATHS))?;
        }
        for key in known {
            let same = |other: &Key<PathKey>| {
                other.prefix_len() == key.prefix_len() && other.data() == key.data()
            };
            if !wanted.iter().any(|(other, _)| same(other)) {
                gone(self.paths.remove(&key), map::PATHS)?;
            }
        }
        Ok(())
    }
}

/// Path rules of a service. An excluded path ends at a boundary, so that `/health` does not
/// exclude `/healthy`: one rule for each byte that can follow a path in a request line, and one for
/// a segment that ends with the path.
fn path_rules(service: u32, count: &CountConfig) -> Vec<(Key<PathKey>, PathRule)> {
    let rule = |path: &[u8], rule| {
        let bits = PathKey::SERVICE_BITS + 8 * path.len() as u32;
        (Key::new(bits, PathKey::new(service, path)), rule)
    };
    let prefix = if count.prefix == "/" {
        ""
    } else {
        &count.prefix
    };
    let mut rules = vec![rule(prefix.as_bytes(), PathRule::Count)];
    for path in &count.exclude {
        for follows in [" ", "?", "/", "#", "\0"] {
            let path = format!("{}{follows}", path.trim_end_matches('/'));
            rules.push(rule(path.as_bytes(), PathRule::Exclude));
        }
    }
    rules
}

pub(super) fn counting(count: &CountConfig) -> Counting {
    if count.prefix == "/" && count.exclude.is_empty() {
        Counting::All
    } else {
        Counting::ByPath
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusions_end_at_a_boundary() {
        let count = CountConfig {
            prefix: "/api/".to_owned(),
            exclude: vec!["/api/v1/_health".to_owned()],
        };
        let rules = path_rules(3, &count);
        assert_eq!(rules.len(), 6);
        assert_eq!(rules[0].0.prefix_len(), 32 + 8 * 5);
        assert_eq!(rules[1].0.prefix_len(), 32 + 8 * 16);
        assert_eq!(counting(&count), Counting::ByPath);
    }
}
