use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::Leaves;
use super::super::testing::{agent, certificates, host, hosts, now, shake};
use super::*;
use crate::home::HomeError;

const DAY: Duration = Duration::from_hours(24);

struct Place {
    _temporary: tempfile::TempDir,
    home: Home,
    dir: std::path::PathBuf,
}

fn place() -> Place {
    let temporary = tempfile::tempdir().unwrap();
    let home = Home::at(temporary.path());
    let dir = home.ca_dir();
    Place { _temporary: temporary, home, dir }
}

impl Place {
    fn load(&self, names: &[&str], now: WallTime) -> Result<(Arc<Authority>, Loaded), CaError> {
        Authority::load_or_create(&self.home, &hosts(names), now)
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.dir.join(name)).unwrap().permissions().mode() & 0o777
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap()
    }
}

#[test]
fn the_first_start_makes_a_root_and_the_next_takes_it() {
    let place = place();
    let (made, loaded) = place.load(&["api.x.test", "*.y.test"], now()).unwrap();
    assert_eq!(loaded, Loaded::Created);
    // TL-38: the key is for its owner alone.
    assert_eq!(fs::metadata(&place.dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!((place.mode("ca.key"), place.mode("ca.pem")), (0o600, 0o644));
    assert!(place.text("ca.key").starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert_eq!(place.text("ca.pem"), made.root_pem());
    assert!(!place.dir.join("ca.pem.next").exists());

    let (taken, loaded) = place.load(&["a.y.test"], now()).unwrap();
    assert_eq!(loaded, Loaded::Existing);
    assert_eq!(taken.info(), made.info());
    assert_eq!(made.info().permitted, ["api.x.test", "y.test"]);
    assert_eq!(Authority::load(&place.home).unwrap().info(), made.info());
}

#[test]
fn the_root_has_the_profile_that_strict_verifiers_want() {
    // TL-40
    let moment = now();
    let authority = Authority::ephemeral(&hosts(&["api.x.test"]), moment).unwrap();
    let root = certificates(authority.root_pem()).remove(0);
    let (_, root) = X509Certificate::from_der(&root).unwrap();
    let constraints = root.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(1));
    let usage = root.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert!(!usage.value.digital_signature());
    let names = root.name_constraints().unwrap().unwrap();
    assert!(names.critical);
    let excluded = names.value.excluded_subtrees.as_ref().unwrap();
    assert!(
        excluded
            .iter()
            .any(|tree| matches!(tree.base, x509_parser::extensions::GeneralName::IPAddress([0, 0, 0, 0, 0, 0, 0, 0])))
    );
    assert!(
        excluded
            .iter()
            .any(|tree| matches!(tree.base, x509_parser::extensions::GeneralName::IPAddress(all) if all == [0; 32]))
    );
    assert!(root.raw_serial().len() <= 20 && root.raw_serial()[0] & 0x80 == 0 && root.raw_serial()[0] != 0);
    let info = authority.info();
    assert!(info.subject.starts_with("Keyferry local CA ") && info.subject.len() == "Keyferry local CA ".len() + 12);
    assert!(moment.since(info.not_before) >= DAY && moment.since(info.not_before) < DAY + Duration::from_secs(1));
    assert_eq!(info.not_after.unix_seconds(), moment.plus(365 * DAY).unix_seconds());
    let other = Authority::ephemeral(&hosts(&["api.x.test"]), moment).unwrap().info();
    assert_ne!(
        (other.subject, other.fingerprint),
        (info.subject, info.fingerprint),
        "every root has a name of its own"
    );
}

#[test]
fn two_processes_that_start_at_once_end_with_one_root() {
    let place = place();
    let roots: Vec<String> = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| place.load(&["api.x.test"], now()).unwrap().0.root_pem().to_owned()))
            .collect();
        tasks.into_iter().map(|task| task.join().unwrap()).collect()
    });
    assert!(roots.iter().all(|root| *root == place.text("ca.pem")));
}

#[test]
fn a_broken_pair_is_refused_and_left_as_it_is() {
    let donor = place();
    donor.load(&["api.x.test"], now()).unwrap();
    let foreign_key = donor.text("ca.key");
    let foreign_root = donor.text("ca.pem");
    let unconstrained = rcgen::generate_simple_self_signed(vec!["x.test".to_owned()]).unwrap();
    type Expected = fn(&CaError) -> bool;
    let cases: Vec<(&str, &str, Option<String>, Expected)> = vec![
        ("an empty key", "ca.key", Some(String::new()), |e| matches!(e, CaError::KeyBroken { .. })),
        ("garbage for a key", "ca.key", Some("not a key".into()), |e| matches!(e, CaError::KeyBroken { .. })),
        ("half a key", "ca.key", Some(foreign_key[..80].into()), |e| matches!(e, CaError::KeyBroken { .. })),
        ("another key", "ca.key", Some(foreign_key.clone()), |e| matches!(e, CaError::Mismatch { .. })),
        ("no key", "ca.key", None, |e| matches!(e, CaError::Half { .. })),
        ("another root", "ca.pem", Some(foreign_root), |e| matches!(e, CaError::Mismatch { .. })),
        ("no root", "ca.pem", None, |e| matches!(e, CaError::Half { .. })),
        ("an empty root", "ca.pem", Some(String::new()), |e| matches!(e, CaError::CertificateBroken { .. })),
        ("a leaf for a root", "ca.pem", Some(unconstrained.cert.pem()), |e| matches!(e, CaError::Mismatch { .. })),
    ];
    for (what, name, content, expected) in cases {
        let place = place();
        place.load(&["api.x.test"], now()).unwrap();
        match &content {
            Some(content) => fs::write(place.dir.join(name), content).unwrap(),
            None => fs::remove_file(place.dir.join(name)).unwrap(),
        }
        for error in [
            place.load(&["api.x.test"], now()).unwrap_err(),
            // Not even a reason to replace it anyway makes up for a broken pair.
            place.load(&["new.test"], now().plus(400 * DAY)).unwrap_err(),
            Authority::rotate(&place.home, &hosts(&["api.x.test"]), now()).unwrap_err(),
            Authority::load(&place.home).unwrap_err(),
        ] {
            assert!(expected(&error), "{what}: {error}");
            assert!(error.hint().is_some(), "{what}");
        }
        assert_eq!(fs::read_to_string(place.dir.join(name)).ok(), content, "{what}");
    }
}

#[test]
fn a_root_that_verifiers_read_otherwise_is_not_taken_for_ours() {
    use rcgen::{BasicConstraints, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints};
    type Change = fn(&mut rcgen::CertificateParams);
    let cases: [(&str, Change); 5] = [
        ("it has no name constraints", |params| params.name_constraints = None),
        ("its name constraints permit every host", |params| {
            // Excluding addresses alone leaves every name.
            params.name_constraints = Subtrees::covering(&["x.test"])
                .ok()
                .map(|trees| NameConstraints { permitted_subtrees: Vec::new(), ..trees.constraints() });
        }),
        ("its name constraints permit every host", |params| {
            let everywhere = vec![GeneralSubtree::Rfc822Name("x.test".to_owned())];
            params.name_constraints =
                Some(NameConstraints { permitted_subtrees: everywhere, excluded_subtrees: Vec::new() });
        }),
        ("it may not sign an intermediate CA", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))),
        ("it may not sign certificates", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]),
    ];
    for (expected, change) in cases {
        let place = place();
        let (authority, _) = place.load(&["api.x.test"], now()).unwrap();
        let mut params = profile::root(&authority.key, &authority.permitted, authority.validity).unwrap();
        change(&mut params);
        fs::write(place.dir.join("ca.pem"), params.self_signed(&*authority.key).unwrap().pem()).unwrap();
        let error = place.load(&["api.x.test"], now()).unwrap_err();
        assert!(matches!(error, CaError::CertificateBroken { what, .. } if what == expected), "{error}");
    }
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let place = place();
    place.load(&["api.x.test"], now()).unwrap();
    let key = place.dir.join("ca.key");
    for mode in [0o644, 0o620, 0o602, 0o604] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let error = place.load(&["api.x.test"], now()).unwrap_err();
        assert!(matches!(error, CaError::Home(HomeError::OpenFile { .. })), "{mode:o}: {error}");
        assert_eq!(error.hint().unwrap(), format!("chmod 600 {}", key.display()));
    }
}

#[test]
fn a_root_is_replaced_in_its_last_month_and_stays_trusted_to_its_end() {
    // TL-42
    let place = place();
    let moment = now();
    let (old, _) = place.load(&["api.x.test"], moment).unwrap();
    let (_, loaded) = place.load(&["api.x.test"], moment.plus(334 * DAY)).unwrap();
    assert_eq!(loaded, Loaded::Existing);
    let (new, loaded) = place.load(&["api.x.test"], moment.plus(336 * DAY)).unwrap();
    assert_eq!(loaded, Loaded::Renewed { reason: Renewal::Expiring { until: old.info().not_after } });
    assert_eq!(new.root_pem().matches("BEGIN CERTIFICATE").count(), 2);
    assert!(new.root_pem().ends_with(old.root_pem()), "the new root comes first");
    assert_ne!(new.info().fingerprint, old.info().fingerprint);
    // A later start finds both, and a renewal after the end of the first leaves only the living.
    assert_eq!(Authority::load(&place.home).unwrap().root_pem(), new.root_pem());
    let (newest, _) = place.load(&["api.x.test"], moment.plus(690 * DAY)).unwrap();
    assert_eq!(newest.root_pem().matches("BEGIN CERTIFICATE").count(), 2);
    assert!(!newest.root_pem().contains(old.root_pem()));
}

#[tokio::test]
async fn a_host_outside_makes_a_new_root_beside_which_the_old_one_still_works() {
    let place = place();
    let (old, _) = place.load(&["api.x.test"], now()).unwrap();
    let (new, loaded) = place.load(&["api.x.test", "*.new.test"], now()).unwrap();
    let Loaded::Renewed { reason } = loaded else { panic!("{loaded:?}") };
    assert_eq!(reason.to_string(), "the old CA may not sign for new.test");
    // A process that was up before goes on with its old root; agents read the new file.
    let leaves = Leaves::new(old);
    let config = leaves.config_for(&host("api.x.test"), now()).await.unwrap();
    let (client, server) = shake(Arc::new(agent(&new)), "api.x.test", &host("api.x.test"), config).await;
    client.unwrap();
    server.unwrap();
}

#[test]
fn former_roots_do_not_pile_up() {
    let place = place();
    for turn in 0..12 {
        Authority::rotate(&place.home, &hosts(&["api.x.test"]), now()).unwrap();
        let expected = (turn + 1).min(1 + FORMER_LIMIT);
        assert_eq!(place.text("ca.pem").matches("BEGIN CERTIFICATE").count(), expected);
    }
}

#[test]
fn a_writer_that_was_stopped_half_way_leaves_a_whole_pair() {
    let donor = place();
    donor.load(&["api.x.test"], now()).unwrap();
    let (next_key, next_root) = (donor.text("ca.key"), donor.text("ca.pem"));

    // Stopped after the certificate was set aside: the old pair stands.
    let place = place();
    let (old, _) = place.load(&["api.x.test"], now()).unwrap();
    fs::write(place.dir.join("ca.pem.next"), &next_root).unwrap();
    let (taken, loaded) = place.load(&["api.x.test"], now()).unwrap();
    assert_eq!((taken.info(), loaded), (old.info(), Loaded::Existing));

    // Stopped after the key was replaced: the new pair stands.
    fs::write(place.dir.join("ca.key"), &next_key).unwrap();
    assert_eq!(Authority::load(&place.home).unwrap().root_pem(), next_root);
    let (taken, loaded) = place.load(&["api.x.test"], now()).unwrap();
    assert_eq!((taken.root_pem(), loaded), (next_root.as_str(), Loaded::Existing));
    assert_eq!(place.text("ca.pem"), next_root);
    assert!(!place.dir.join("ca.pem.next").exists());
}

#[test]
fn a_clock_outside_of_the_roots_life_is_a_clear_error() {
    // TL-41
    let place = place();
    let moment = now();
    place.load(&["api.x.test"], moment).unwrap();
    let error = place.load(&["api.x.test"], profile::minus(moment, 2 * DAY)).unwrap_err();
    assert!(matches!(error, CaError::NotValidNow { .. }), "{error}");
    assert_eq!(error.hint().unwrap(), "check the clock: date --utc");
    assert!(matches!(Authority::ephemeral(&[], WallTime(u64::MAX)).unwrap_err(), CaError::Clock { .. }));
}

#[test]
fn a_home_that_cannot_be_written_serves_as_long_as_nothing_has_to_change() {
    let place = place();
    place.load(&["api.x.test"], now()).unwrap();
    fs::remove_file(place.dir.join("ca.lock")).unwrap();
    // A directory in the lock's place fails for root as well, whom permissions do not stop.
    fs::create_dir(place.dir.join("ca.lock")).unwrap();
    assert_eq!(place.load(&["api.x.test"], now()).unwrap().1, Loaded::Existing);
    assert!(matches!(place.load(&["new.test"], now()).unwrap_err(), CaError::Write { .. }));
}

#[test]
fn the_intermediate_is_shorter_and_narrower_than_the_root() {
    let moment = now();
    let authority = Authority::ephemeral(&hosts(&["api.x.test", "*.y.test"]), moment).unwrap();
    let narrow = Subtrees::covering(&["a.y.test"]).unwrap();
    let made = authority.intermediate(&narrow, moment).unwrap();
    let (_, certificate) = X509Certificate::from_der(&made.certificate).unwrap();
    assert_eq!(certificate.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
    let names = certificate.name_constraints().unwrap().unwrap();
    assert!(names.critical);
    assert_eq!(names.value.permitted_subtrees.as_ref().unwrap().len(), 1);
    assert_eq!(names.value.excluded_subtrees.as_ref().unwrap().len(), 2);
    let life = made.validity.until.since(moment);
    assert!(life <= 90 * DAY);
    // Close to the root's end it ends with the root.
    let late = authority.intermediate(&narrow, moment.plus(364 * DAY)).unwrap();
    assert_eq!(late.validity.until, authority.info().not_after);
    assert!(late.ends_with_root);
    assert!(authority.intermediate(&narrow, moment.plus(366 * DAY)).is_err());
}

#[test]
fn debug_shows_what_the_root_is_and_nothing_of_its_key() {
    let authority = Authority::ephemeral(&hosts(&["api.x.test"]), now()).unwrap();
    let shown = format!("{authority:?}");
    assert_eq!(shown, format!("Authority {{ info: {:?}, .. }}", authority.info()));
}
