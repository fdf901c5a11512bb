//! `orch scale`: overrides the policy.

use super::{CliError, Target, print};
use crate::{
    api::{Auto, Replicas, Scale},
    view::ServiceRow,
};

/// Sets the number of copies of a service, or hands it back to the policy
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    orch scale acts=3         three copies, whatever the load\n  \
    orch scale acts=auto      as many as the policy decides")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Service and number of copies, or `auto`
    #[arg(required = true, value_name = "SERVICE=N", value_parser = parse)]
    wishes: Vec<Wish>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    service: String,
    replicas: Replicas,
}

impl Wish {
    /// Whether it is for this service, and within its limits.
    fn is_allowed(&self, row: &ServiceRow) -> bool {
        let within = match self.replicas {
            Replicas::Fixed(count) => (row.min..=row.max).contains(&count),
            Replicas::Policy(Auto::Auto) => true,
        };
        row.service == self.service && within
    }
}

/// Why an argument is no wish.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("write SERVICE=N or SERVICE=auto, like acts=3")]
struct NoWish;

pub(super) async fn run(args: Args, before: Target) -> Result<(), CliError> {
    let client = args.target.or(before).client()?;
    let mut wishes = args.wishes;
    if wishes.len() > 1 {
        // What cannot be done is refused before anything is.
        let rows: Vec<ServiceRow> = client.get("/v1/services").await?;
        wishes.sort_by_key(|wish| rows.iter().any(|row| wish.is_allowed(row)));
    }
    for Wish { service, replicas } in wishes {
        let what = format!("/v1/services/{service}/scale");
        let done = client.post(&what, &Scale { replicas }).await?;
        print::text(&format!("{service}: {done}\n"))?;
    }
    Ok(())
}

fn parse(text: &str) -> Result<Wish, NoWish> {
    let (service, count) = text.split_once('=').ok_or(NoWish)?;
    if service.is_empty() {
        return Err(NoWish);
    }
    let replicas = match count {
        "auto" => Replicas::Policy(Auto::Auto),
        _ => Replicas::Fixed(count.parse().map_err(|_| NoWish)?),
    };
    Ok(Wish {
        service: service.to_owned(),
        replicas,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_forbids_is_told_from_what_it_allows() {
        let row = ServiceRow {
            service: "acts".to_owned(),
            min: 1,
            max: 3,
            ..ServiceRow::default()
        };
        let allowed = |text| parse(text).unwrap().is_allowed(&row);
        assert!(allowed("acts=1") && allowed("acts=3") && allowed("acts=auto"));
        assert!(!allowed("acts=0") && !allowed("acts=4") && !allowed("other=2"));
    }

    #[test]
    fn wishes_are_numbers_or_auto() {
        assert_eq!(parse("acts=3").unwrap().replicas, Replicas::Fixed(3));
        assert_eq!(
            parse("acts=auto").unwrap().replicas,
            Replicas::Policy(Auto::Auto)
        );
        for bad in ["acts", "acts=", "=3", "acts=-1", "acts=many", "acts=70000"] {
            assert_eq!(parse(bad), Err(NoWish), "{bad}");
        }
    }
}
