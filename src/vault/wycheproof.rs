//! Project Wycheproof's vectors for what the records are made of.

use aes_gcm::aead::AeadInOut as _;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{Aes256Gcm, KeyInit as _};
use hkdf::Hkdf;
use sha2::Sha256;
use wycheproof::TestResult;

use super::record::keyed;

#[test]
fn aes_256_gcm_with_nonces_of_96_bits() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let groups = set.test_groups.iter().filter(|g| (g.key_size, g.nonce_size, g.tag_size) == (256, 96, 128));
    let mut seen = 0;
    for test in groups.flat_map(|group| &group.tests) {
        let cipher = Aes256Gcm::new_from_slice(&test.key).unwrap();
        let nonce: [u8; 12] = test.nonce.as_ref().try_into().unwrap();
        let tag: [u8; 16] = test.tag.as_ref().try_into().unwrap();
        let mut text = test.ct.to_vec();
        let opened =
            cipher.decrypt_inout_detached(&nonce.into(), &test.aad, InOutBuf::from(text.as_mut_slice()), &tag.into());
        assert_eq!(opened.is_ok(), test.result == TestResult::Valid, "{}", test.tc_id);
        if test.result == TestResult::Valid {
            assert_eq!(text, test.pt.as_ref(), "{}", test.tc_id);
            let made =
                cipher.encrypt_inout_detached(&nonce.into(), &test.aad, InOutBuf::from(text.as_mut_slice())).unwrap();
            assert_eq!((text.as_slice(), made.as_slice()), (test.ct.as_ref(), test.tag.as_ref()), "{}", test.tc_id);
        }
        seen += 1;
    }
    assert!(seen >= 66, "{seen}");
}

#[test]
fn hkdf_with_sha_256() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let mut seen = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut output = vec![0; test.size];
        let made = Hkdf::<Sha256>::new(Some(&test.salt), &test.ikm).expand(&test.info, &mut output);
        assert_eq!(made.is_ok(), test.result == TestResult::Valid, "{}", test.tc_id);
        assert!(made.is_err() || output == test.okm.as_ref(), "{}", test.tc_id);
        seen += 1;
    }
    assert!(seen >= 86, "{seen}");
}

#[test]
fn hmac_with_sha_256() {
    let set = wycheproof::mac::TestSet::load(wycheproof::mac::TestName::HmacSha256).unwrap();
    let (mut seen, mut ours) = (0, 0);
    for group in &set.test_groups {
        for test in &group.tests {
            use hmac::{KeyInit as _, Mac as _};
            let whole = hmac::Hmac::<Sha256>::new_from_slice(&test.key).unwrap().chain_update(&test.msg);
            let whole: [u8; 32] = whole.finalize().into_bytes().into();
            let fits = whole[..group.tag_size / 8] == *test.tag.as_ref();
            assert_eq!(fits, test.result == TestResult::Valid, "{}", test.tc_id);
            // The vault's own way of keying it takes keys of 32 bytes.
            if let Ok(key) = <&[u8; 32]>::try_from(test.key.as_ref()) {
                assert_eq!(keyed(key, &[&test.msg]), whole, "{}", test.tc_id);
                ours += 1;
            }
            seen += 1;
        }
    }
    assert!(seen >= 174 && ours > 50, "{seen} {ours}");
}
