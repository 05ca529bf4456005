//! `Countersign-Hop` (WIRE §2): an RFC 9651 dictionary, parsed strictly. It holds no secret, and proves nothing alone.
use sfv::{
    BareItemFromInput, KeyRef, Parser,
    visitor::{DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ParameterVisitor},
};

/// Deepest lineage accepted.
pub const DEPTH_MAX: u8 = 16;
/// Longest field value accepted, in bytes; the longest legitimate one has 88.
pub const FIELD_BYTES_MAX: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// 1 for the first hop, at most [`DEPTH_MAX`].
    pub depth: u8,
    /// Random, new for every outgoing request.
    pub hid: [u8; 16],
    /// Hash of the sender's own inbound hop; zero at the first.
    pub prv: [u8; 32],
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HopError {
    #[error("not an RFC 9651 dictionary")]
    Syntax,
    #[error("member `{0}` is missing or of the wrong type")]
    Member(&'static str),
    #[error("an unknown member")]
    Unknown,
    #[error("a member stands twice")]
    Twice,
    #[error("deeper than 16 hops")]
    TooDeep,
}

impl Hop {
    /// Exactly the members `n`, `hid` and `prv`, in any order, each once and without parameters.
    pub fn parse(field: &str) -> Result<Hop, HopError> {
        if field.len() > FIELD_BYTES_MAX {
            return Err(HopError::Syntax);
        }
        let mut found = Found::default();
        let parsed = Parser::new(field).parse_dictionary_with_visitor(Members { found: &mut found });
        if let Some(error) = found.error {
            return Err(error);
        }
        parsed.map_err(|_| HopError::Syntax)?;
        let depth = found.depth.ok_or(HopError::Member("n"))?;
        let hid = found.hid.ok_or(HopError::Member("hid"))?;
        let prv = found.prv.ok_or(HopError::Member("prv"))?;
        match u8::try_from(depth) {
            Ok(depth @ 1..=DEPTH_MAX) => Ok(Hop { depth, hid, prv }),
            Ok(0) => Err(HopError::Member("n")),
            _ if depth < 0 => Err(HopError::Member("n")),
            _ => Err(HopError::TooDeep),
        }
    }

    /// The field value, members in the order `n`, `hid`, `prv`.
    pub fn to_field(&self) -> String {
        let mut serializer = sfv::DictSerializer::new();
        serializer.bare_item(sfv::key_ref("n"), sfv::integer(i64::from(self.depth)));
        serializer.bare_item(sfv::key_ref("hid"), self.hid.as_slice());
        serializer.bare_item(sfv::key_ref("prv"), self.prv.as_slice());
        serializer.finish().unwrap_or_default()
    }
}

/// What the parser has met so far. The first error is kept here, because the parser reports its own kind only.
#[derive(Default)]
struct Found {
    depth: Option<i64>,
    hid: Option<[u8; 16]>,
    prv: Option<[u8; 32]>,
    error: Option<HopError>,
}

/// Stops the parser; the reason is in [`Found`].
#[derive(Debug, thiserror::Error)]
#[error("refused")]
struct Stop;

#[derive(Clone, Copy)]
enum Member {
    Depth,
    Hid,
    Prv,
}

impl Member {
    fn key(self) -> &'static str {
        match self {
            Member::Depth => "n",
            Member::Hid => "hid",
            Member::Prv => "prv",
        }
    }
}

impl Found {
    fn stop(&mut self, error: HopError) -> Stop {
        self.error.get_or_insert(error);
        Stop
    }

    fn take(&mut self, member: Member, item: BareItemFromInput<'_>) -> Result<(), Stop> {
        let taken = match (member, item) {
            (Member::Depth, BareItemFromInput::Integer(depth)) => {
                self.depth = Some(i64::from(depth));
                true
            }
            (Member::Hid, BareItemFromInput::ByteSequence(bytes)) => {
                self.hid = bytes.try_into().ok();
                self.hid.is_some()
            }
            (Member::Prv, BareItemFromInput::ByteSequence(bytes)) => {
                self.prv = bytes.try_into().ok();
                self.prv.is_some()
            }
            _ => false,
        };
        if taken { Ok(()) } else { Err(self.stop(HopError::Member(member.key()))) }
    }
}

struct Members<'a> {
    found: &'a mut Found,
}

impl<'de> DictionaryVisitor<'de> for Members<'_> {
    type Out = ();
    type Error = Stop;
    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Stop> {
        let (member, seen) = match key.as_str() {
            "n" => (Member::Depth, self.found.depth.is_some()),
            "hid" => (Member::Hid, self.found.hid.is_some()),
            "prv" => (Member::Prv, self.found.prv.is_some()),
            _ => return Err(self.found.stop(HopError::Unknown)),
        };
        if seen {
            return Err(self.found.stop(HopError::Twice));
        }
        Ok(Entry { member, found: self.found })
    }
    fn finish(self) -> Result<(), Stop> {
        Ok(())
    }
}

struct Entry<'a> {
    member: Member,
    found: &'a mut Found,
}

impl<'de> EntryVisitor<'de> for Entry<'_> {
    type Error = Stop;
    fn item(self) -> Result<impl ItemVisitor<'de>, Stop> {
        Ok(self)
    }
    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Stop> {
        Err::<Ignored, Stop>(self.found.stop(HopError::Member(self.member.key())))
    }
}

impl<'de> ItemVisitor<'de> for Entry<'_> {
    type Out = ();
    type Error = Stop;
    fn bare_item(self, item: BareItemFromInput<'de>) -> Result<impl ParameterVisitor<'de, Out = ()>, Stop> {
        self.found.take(self.member, item)?;
        Ok(NoParameters(self))
    }
}

struct NoParameters<'a>(Entry<'a>);

impl<'de> ParameterVisitor<'de> for NoParameters<'_> {
    type Out = ();
    type Error = Stop;
    fn parameter(&mut self, _key: &'de KeyRef, _value: BareItemFromInput<'de>) -> Result<(), Stop> {
        Err(self.0.found.stop(HopError::Member(self.0.member.key())))
    }
    fn finish(self) -> Result<(), Stop> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HID: &str = ":AAECAwQFBgcICQoLDA0ODw==:";
    const PRV: &str = ":AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";

    #[track_caller]
    fn check(field: &str, expected: Result<u8, HopError>) {
        let field = field.replace("HID", HID).replace("PRV", PRV);
        assert_eq!(Hop::parse(&field).map(|hop| hop.depth), expected, "{field}");
    }

    #[test]
    fn well_formed_fields_are_read() {
        check("n=2, hid=HID, prv=PRV", Ok(2));
        check("prv=PRV,hid=HID,n=16", Ok(16));
        check(" n=1,\thid=HID, prv=PRV ", Ok(1));
    }

    #[test]
    fn malformed_fields_are_refused() {
        for field in
            ["n=2,", "n", "N=2", "n=2 hid=HID", "n=", "n=2, hid=:%%:", "n=2, hid=:AAEC", "\u{e9}=1", ",", "n=2;=1"]
        {
            let found = Hop::parse(field);
            assert!(matches!(found, Err(HopError::Syntax | HopError::Member(_))), "{field}: {found:?}");
        }
        check(&format!("n=2, hid=HID, prv=PRV{}", " ".repeat(256)), Err(HopError::Syntax));
    }

    #[test]
    fn members_are_exact() {
        check("", Err(HopError::Member("n")));
        check("n=2, hid=HID", Err(HopError::Member("prv")));
        check("n=2, prv=PRV", Err(HopError::Member("hid")));
        check("hid=HID, prv=PRV", Err(HopError::Member("n")));
        check("n=2.0, hid=HID, prv=PRV", Err(HopError::Member("n")));
        check("n=\"2\", hid=HID, prv=PRV", Err(HopError::Member("n")));
        check("n=(2), hid=HID, prv=PRV", Err(HopError::Member("n")));
        check("n=2;x, hid=HID, prv=PRV", Err(HopError::Member("n")));
        check("n=2, hid=PRV, prv=PRV", Err(HopError::Member("hid")));
        check("n=2, hid=HID, prv=HID", Err(HopError::Member("prv")));
        check("n=2, hid=HID, prv=PRV, x=1", Err(HopError::Unknown));
        check("n=2, n=3, hid=HID, prv=PRV", Err(HopError::Twice));
    }

    #[test]
    fn depth_is_bounded() {
        check("n=0, hid=HID, prv=PRV", Err(HopError::Member("n")));
        check("n=-1, hid=HID, prv=PRV", Err(HopError::Member("n")));
        check("n=-999, hid=HID, prv=PRV", Err(HopError::Member("n")));
        check("n=17, hid=HID, prv=PRV", Err(HopError::TooDeep));
        check("n=256, hid=HID, prv=PRV", Err(HopError::TooDeep));
        check("n=999999999999999, hid=HID, prv=PRV", Err(HopError::TooDeep));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(depth in 1..=DEPTH_MAX, hid: [u8; 16], prv: [u8; 32]) {
            let hop = Hop { depth, hid, prv };
            prop_assert!(hop.to_field().len() <= 96);
            prop_assert_eq!(Hop::parse(&hop.to_field()), Ok(hop));
        }

        #[test]
        fn no_text_panics(field in ".*") {
            if let Ok(hop) = Hop::parse(&field) {
                prop_assert_eq!(Hop::parse(&hop.to_field()), Ok(hop));
            }
        }
    }
}
