use proptest::prelude::*;

use super::*;

struct Vector {
    key: [u8; 32],
    random: [u8; 32],
    context: Context,
    payload: Vec<u8>,
    blob: Vec<u8>,
    negatives: u64,
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn vectors() -> Vec<Vector> {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/vault_kat.json"));
    let all: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
    all.iter()
        .map(|one| {
            let text = |name: &str| one[name].as_str().unwrap();
            let id = |name: &str| -> [u8; 16] { hex(text(name)).try_into().unwrap() };
            Vector {
                key: hex(text("vk")).try_into().unwrap(),
                random: hex(text("rnd")).try_into().unwrap(),
                context: Context {
                    deployment: id("deployment"),
                    vault: id("vault"),
                    record: id("record"),
                    kind: one["kind"].as_u64().unwrap().try_into().unwrap(),
                    term: text("term").parse().unwrap(),
                    version: text("version").parse().unwrap(),
                },
                payload: hex(text("plaintext")),
                blob: hex(text("blob")),
                negatives: one["negatives_checked"].as_u64().unwrap(),
            }
        })
        .collect()
}

#[test]
fn known_answers_open_and_reseal_byte_for_byte() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 8);
    for (at, vector) in vectors.iter().enumerate() {
        let opened = open(&vector.key, &vector.context, &vector.blob).unwrap();
        assert_eq!(*opened, vector.payload, "vector {at}");
        let sealed = seal(&vector.key, &vector.context, &vector.payload, &vector.random).unwrap();
        assert_eq!(sealed, vector.blob, "vector {at}");
        assert_eq!(term(&sealed), Some(vector.context.term));
    }
}

fn other_contexts(context: Context) -> [Context; 6] {
    let mut all = [context; 6];
    all[0].deployment[0] ^= 1;
    all[1].vault[15] ^= 1;
    all[2].record[7] ^= 1;
    all[3].kind ^= 1;
    all[4].term ^= 1;
    all[5].version ^= 1;
    all
}

// VA-01, VA-02, VA-03
#[test]
fn every_change_of_a_known_answer_fails() {
    let mut negatives = 0;
    for vector in vectors() {
        let refused = |context: &Context, blob: &[u8]| assert!(open(&vector.key, context, blob).is_err());
        for at in 0..vector.blob.len() {
            let mut changed = vector.blob.clone();
            changed[at] ^= 1 << (at % 8);
            refused(&vector.context, &changed);
            changed[at] = !vector.blob[at];
            refused(&vector.context, &changed);
            refused(&vector.context, &vector.blob[..at]);
            negatives += 3;
        }
        for context in other_contexts(vector.context) {
            refused(&context, &vector.blob);
            negatives += 1;
        }
        for extra in [1, 16, 256] {
            refused(&vector.context, &[vector.blob.clone(), vec![0; extra]].concat());
        }
        assert!(vector.negatives > 0);
    }
    assert!(negatives > 8_498, "{negatives}");
}

/// A header of this very key and context would still have to agree with the context's kind, term and version when
/// both the blob's header and the caller's context are moved together.
#[test]
fn a_record_moved_to_another_version_fails_by_its_commitment() {
    for vector in vectors() {
        let mut context = vector.context;
        context.version ^= 1;
        let mut moved = vector.blob.clone();
        moved[12..20].copy_from_slice(&context.version.to_be_bytes());
        assert_eq!(open(&vector.key, &context, &moved), Err(RecordError::WrongKeyOrContext));
    }
}

#[test]
fn another_key_is_told_from_changed_bytes() {
    for vector in vectors() {
        let mut key = vector.key;
        key[31] ^= 1;
        assert_eq!(open(&key, &vector.context, &vector.blob), Err(RecordError::WrongKeyOrContext));
        let mut changed = vector.blob.clone();
        changed[HEAD] ^= 1;
        assert_eq!(open(&vector.key, &vector.context, &changed), Err(RecordError::Corrupt));
    }
}

// VA-13: a body that is valid under another key does not get past the commitment.
#[test]
fn a_body_of_another_key_is_refused_before_it_is_decrypted() {
    let context = vectors()[0].context;
    let mine = seal(&[1; 32], &context, b"value", &[0; 32]).unwrap();
    let theirs = seal(&[2; 32], &context, b"value", &[0; 32]).unwrap();
    let mixed = [&mine[..HEAD], &theirs[HEAD..]].concat();
    assert_eq!(open(&[1; 32], &context, &mixed), Err(RecordError::Corrupt));
    let mixed = [&mine[..52], &theirs[52..]].concat();
    assert_eq!(open(&[1; 32], &context, &mixed), Err(RecordError::WrongKeyOrContext));
}

// VA-09
#[test]
fn a_generator_that_repeats_itself_still_gives_different_salts() {
    let context = vectors()[0].context;
    let salt_of =
        |context: &Context, payload: &[u8]| seal(&[7; 32], context, payload, &[0; 32]).unwrap()[20..52].to_vec();
    let mut salts = std::collections::HashSet::new();
    salts.insert(salt_of(&context, b"one"));
    salts.insert(salt_of(&context, b"two"));
    for other in other_contexts(context) {
        salts.insert(salt_of(&other, b"one"));
    }
    assert_eq!(salts.len(), 8);
}

#[test]
fn the_length_of_a_payload_shows_only_in_steps_of_a_block() {
    let context = vectors()[0].context;
    let length = |payload: usize| seal(&[7; 32], &context, &vec![b'x'; payload], &[0; 32]).unwrap().len();
    assert_eq!(length(0), length(255));
    assert_eq!(length(256), length(255) + BLOCK);
    assert_eq!(length(PAYLOAD_LIMIT), BLOB_LIMIT);
    assert_eq!(seal(&[7; 32], &context, &vec![b'x'; PAYLOAD_LIMIT + 1], &[0; 32]), Err(RecordError::TooLarge));
}

proptest! {
    #[test]
    fn what_was_sealed_opens(
        key: [u8; 32], random: [u8; 32], deployment: [u8; 16], vault: [u8; 16], record: [u8; 16],
        kind: u16, term: u32, version: u64, payload in proptest::collection::vec(any::<u8>(), 0..1500),
    ) {
        let context = Context { deployment, vault, record, kind, term, version };
        let blob = seal(&key, &context, &payload, &random).unwrap();
        prop_assert_eq!(&*open(&key, &context, &blob).unwrap(), &payload);
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        let context = Context { deployment: [1; 16], vault: [2; 16], record: [3; 16], kind: 1, term: 1, version: 1 };
        prop_assert!(open(&[7; 32], &context, &bytes).is_err());
        let dressed = [b"VLT1\x01\0".as_slice(), &bytes].concat();
        prop_assert!(open(&[7; 32], &context, &dressed).is_err());
    }
}
