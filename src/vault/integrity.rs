//! What makes a forged, changed, missing or rolled-back row visible: a MAC on each row, and a manifest over all MACs.
//!
//! Sealed records protect themselves. Everything beside them (who an agent is, whose a token is, which version of a
//! credential is the current one) is protected here: a row's MAC covers all its columns, and the manifest holds, for each
//! table, how many rows there are and a sum over their MACs. The manifest changes in the same transaction as the rows
//! and counts its own changes, the epoch.
//!
//! Invariant: no row leaves the vault room before its MAC was verified, and no table before its count and sum were.

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::error::VaultError;
use super::record::keyed;

/// The protected tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Credentials.
    Credential,
    /// Versions of credentials.
    Version,
    /// Agents.
    Agent,
    /// Tokens.
    Token,
}

impl Section {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Credential => b"credential\0",
            Self::Version => b"version\0",
            Self::Agent => b"agent\0",
            Self::Token => b"token\0",
        }
    }

    fn table(self) -> &'static str {
        match self {
            Self::Credential => "the table of credentials",
            Self::Version => "the table of versions",
            Self::Agent => "the table of agents",
            Self::Token => "the table of tokens",
        }
    }
}

/// A row with a MAC.
pub trait Protected {
    /// Its table.
    const SECTION: Section;
    /// Writes every column but the MAC, in a fixed order.
    fn canonical(&self, to: &mut Canon);
    /// The MAC that the row carries.
    fn mac(&self) -> &[u8; 32];
    /// Gives it another.
    fn set_mac(&mut self, mac: [u8; 32]);
}

/// A row's columns in a form that no two different rows share: each with its type and length.
#[derive(Debug, Default)]
pub struct Canon(Vec<u8>);

impl Canon {
    fn item(&mut self, mark: u8, bytes: &[u8]) -> &mut Self {
        self.0.push(mark);
        self.0.extend_from_slice(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// A blob.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.item(b'b', bytes)
    }

    /// A text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.item(b't', text.as_bytes())
    }

    /// A number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.item(b'n', &number.to_be_bytes())
    }

    /// A text or NULL.
    pub fn maybe(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(text),
            None => self.item(b'0', b""),
        }
    }

    /// A number or NULL.
    pub fn maybe_number(&mut self, number: Option<u64>) -> &mut Self {
        match number {
            Some(number) => self.number(number),
            None => self.item(b'0', b""),
        }
    }
}

/// How many rows a table has, and the sum of their marks modulo 2^256.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// The sum, least significant byte first.
    pub sum: [u8; 32],
}

/// What the tables hold, and how often that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manifest {
    /// Counts the changes.
    pub epoch: u64,
    /// The tables in the order of [`Section`].
    pub tallies: [Tally; 4],
    /// The manifest's MAC.
    pub mac: [u8; 32],
}

impl Manifest {
    /// Of empty tables; its MAC is still to be set.
    #[must_use]
    pub fn empty() -> Self {
        Self { epoch: 0, tallies: [Tally::default(); 4], mac: [0; 32] }
    }

    /// The tallies as they are stored.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        self.tallies.iter().flat_map(|tally| tally.count.to_be_bytes().into_iter().chain(tally.sum)).collect()
    }

    /// Reads what [`Manifest::body`] wrote.
    #[must_use]
    pub fn from_parts(epoch: u64, body: &[u8], mac: [u8; 32]) -> Option<Self> {
        let mut tallies = [Tally::default(); 4];
        let (chunks, rest) = body.as_chunks::<40>();
        if chunks.len() != tallies.len() || !rest.is_empty() {
            return None;
        }
        for (tally, chunk) in tallies.iter_mut().zip(chunks) {
            let (count, sum) = chunk.split_first_chunk::<8>()?;
            *tally = Tally { count: u64::from_be_bytes(*count), sum: *sum.first_chunk::<32>()? };
        }
        Some(Self { epoch, tallies, mac })
    }

    fn tally(&mut self, section: Section) -> &mut Tally {
        let [credential, version, agent, token] = &mut self.tallies;
        match section {
            Section::Credential => credential,
            Section::Version => version,
            Section::Agent => agent,
            Section::Token => token,
        }
    }
}

/// The keys that rows and manifest are protected with.
pub struct Guard {
    row: Zeroizing<[u8; 32]>,
    manifest: Zeroizing<[u8; 32]>,
    /// Deployment and vault: a row of another vault is a forged one.
    place: [u8; 32],
}

impl Guard {
    pub(super) fn new(
        row: Zeroizing<[u8; 32]>,
        manifest: Zeroizing<[u8; 32]>,
        deployment: [u8; 16],
        vault: [u8; 16],
    ) -> Self {
        let mut place = [0; 32];
        place.iter_mut().zip(deployment.into_iter().chain(vault)).for_each(|(to, from)| *to = from);
        Self { row, manifest, place }
    }

    fn mac_of<R: Protected>(&self, row: &R) -> [u8; 32] {
        let mut canon = Canon::default();
        row.canonical(&mut canon);
        keyed(&self.row, &[R::SECTION.label(), &self.place, &canon.0])
    }

    /// Sets the row's MAC.
    pub(super) fn protect<R: Protected>(&self, mut row: R) -> R {
        row.set_mac(self.mac_of(&row));
        row
    }

    /// Passes the row on if its MAC is right.
    pub(super) fn verify<R: Protected>(&self, row: R, what: impl FnOnce(&R) -> String) -> Result<R, VaultError> {
        let expected = self.mac_of(&row);
        if bool::from(row.mac().ct_eq(&expected)) { Ok(row) } else { Err(VaultError::corrupt(what(&row))) }
    }

    /// Sets the manifest's MAC.
    pub(super) fn seal(&self, mut manifest: Manifest) -> Manifest {
        manifest.mac = self.manifest_mac(&manifest);
        manifest
    }

    /// Passes the manifest on if its MAC is right.
    pub(super) fn check(&self, manifest: Manifest) -> Result<Manifest, VaultError> {
        if bool::from(self.manifest_mac(&manifest).ct_eq(&manifest.mac)) {
            Ok(manifest)
        } else {
            Err(VaultError::corrupt("the vault's manifest"))
        }
    }

    fn manifest_mac(&self, manifest: &Manifest) -> [u8; 32] {
        keyed(&self.manifest, &[b"manifest\0", &self.place, &manifest.epoch.to_be_bytes(), &manifest.body()])
    }

    /// Protects a noted epoch.
    pub(super) fn anchor(&self, epoch: u64) -> [u8; 32] {
        keyed(&self.manifest, &[b"anchor\0", &self.place, &epoch.to_be_bytes()])
    }

    /// What a row's MAC adds to the sum. Keyed, so that nobody without the key can look for rows of equal sums.
    fn mark(&self, section: Section, mac: &[u8; 32]) -> [u8; 32] {
        keyed(&self.manifest, &[b"row\0", section.label(), mac])
    }

    /// Counts a row in.
    pub(super) fn add<R: Protected>(&self, manifest: &mut Manifest, row: &R) -> Result<(), VaultError> {
        let mark = self.mark(R::SECTION, row.mac());
        let tally = manifest.tally(R::SECTION);
        tally.count = tally.count.checked_add(1).ok_or_else(|| VaultError::corrupt(R::SECTION.table()))?;
        tally.sum = plus(tally.sum, mark);
        Ok(())
    }

    /// Counts a row out.
    pub(super) fn remove<R: Protected>(&self, manifest: &mut Manifest, row: &R) -> Result<(), VaultError> {
        let mark = self.mark(R::SECTION, row.mac());
        let tally = manifest.tally(R::SECTION);
        tally.count = tally.count.checked_sub(1).ok_or_else(|| VaultError::corrupt(R::SECTION.table()))?;
        tally.sum = plus(tally.sum, negated(mark));
        Ok(())
    }

    /// Checks that exactly these rows are in the table.
    pub(super) fn check_table<'a, R: Protected + 'a>(
        &self,
        manifest: &Manifest,
        mut rows: impl Iterator<Item = &'a R>,
    ) -> Result<(), VaultError> {
        let mut found = Manifest::empty();
        rows.try_for_each(|row| self.add(&mut found, row))?;
        let mut expected = *manifest;
        if found.tally(R::SECTION) == expected.tally(R::SECTION) {
            Ok(())
        } else {
            Err(VaultError::corrupt(R::SECTION.table()))
        }
    }
}

fn plus(left: [u8; 32], right: [u8; 32]) -> [u8; 32] {
    let mut carry = 0u16;
    let mut sum = [0; 32];
    for ((to, left), right) in sum.iter_mut().zip(left).zip(right) {
        carry += u16::from(left) + u16::from(right);
        [*to, _] = carry.to_le_bytes();
        carry >>= 8;
    }
    sum
}

fn negated(number: [u8; 32]) -> [u8; 32] {
    let mut one = [0; 32];
    one.iter_mut().take(1).for_each(|byte| *byte = 1);
    plus(number.map(|byte| !byte), one)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::store::AgentRecord;
    use super::*;

    fn guard() -> Guard {
        Guard::new(Zeroizing::new([1; 32]), Zeroizing::new([2; 32]), [3; 16], [4; 16])
    }

    fn agent(name: &str, revoked: Option<u64>) -> AgentRecord {
        guard().protect(AgentRecord { name: name.to_owned(), created: 5, revoked, mac: [0; 32] })
    }

    fn sound(row: AgentRecord) -> bool {
        guard().verify(row, |row| row.name.clone()).is_ok()
    }

    #[test]
    fn a_changed_column_is_seen() {
        assert!(sound(agent("a", None)));
        let changes: [fn(&mut AgentRecord); 4] =
            [|row| row.name.push('x'), |row| row.created += 1, |row| row.revoked = Some(0), |row| row.mac[0] ^= 1];
        for change in changes {
            let mut row = agent("a", None);
            change(&mut row);
            assert!(!sound(row));
        }
        let elsewhere = Guard::new(Zeroizing::new([1; 32]), Zeroizing::new([2; 32]), [3; 16], [5; 16]);
        assert!(elsewhere.verify(agent("a", None), |_| String::new()).is_err());
    }

    #[test]
    fn columns_do_not_run_into_each_other() {
        let canon = |left: &str, right: &str| {
            let mut canon = Canon::default();
            canon.text(left).text(right);
            canon.0
        };
        assert_ne!(canon("ab", "c"), canon("a", "bc"));
        let mut null = Canon::default();
        null.maybe(None);
        let mut empty = Canon::default();
        empty.maybe(Some(""));
        assert_ne!(null.0, empty.0);
    }

    // VA-06, VA-08
    #[test]
    fn the_manifest_sees_missing_doubled_and_older_rows() {
        let guard = guard();
        let mut manifest = Manifest::empty();
        let rows = [agent("a", None), agent("b", None), agent("c", None)];
        rows.iter().for_each(|row| guard.add(&mut manifest, row).unwrap());
        let newer = agent("c", Some(9));
        guard.remove(&mut manifest, &rows[2]).unwrap();
        guard.add(&mut manifest, &newer).unwrap();

        let matches = |rows: &[&AgentRecord]| guard.check_table(&manifest, rows.iter().copied()).is_ok();
        let [a, b, old] = &rows;
        assert!(matches(&[a, b, &newer]));
        assert!(matches(&[&newer, a, b]));
        assert!(!matches(&[a, b, old]));
        assert!(!matches(&[a, b]));
        assert!(!matches(&[a, b, &newer, &newer]));
        assert!(!matches(&[a, a, &newer]));
    }

    #[test]
    fn a_changed_manifest_is_seen() {
        let guard = guard();
        let mut manifest = Manifest::empty();
        guard.add(&mut manifest, &agent("a", None)).unwrap();
        let manifest = guard.seal(manifest);
        assert!(guard.check(manifest).is_ok());
        let again = Manifest::from_parts(manifest.epoch, &manifest.body(), manifest.mac).unwrap();
        assert_eq!(again, manifest);
        assert!(guard.check(Manifest { epoch: 1, ..manifest }).is_err());
        for at in 0..160 {
            let mut body = manifest.body();
            body[at] ^= 1;
            assert!(guard.check(Manifest::from_parts(0, &body, manifest.mac).unwrap()).is_err());
        }
        assert!(Manifest::from_parts(0, &manifest.body()[1..], manifest.mac).is_none());
    }

    proptest! {
        #[test]
        fn what_was_added_can_be_taken_away(left: [u8; 32], right: [u8; 32]) {
            prop_assert_eq!(plus(plus(left, right), negated(right)), left);
        }
    }
}
