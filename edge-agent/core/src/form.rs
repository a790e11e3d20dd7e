//! How the contract's types, which know nothing of serialisation, are serialised: as the numbers that they are there.

macro_rules! number {
    ($name:ident, $type:ty, $number:ty, $to:expr, $from:expr, $what:literal) => {
        pub(crate) mod $name {
            use serde::de::Error;
            use serde::{Deserialize, Deserializer, Serialize, Serializer};

            pub(crate) fn serialize<S: Serializer>(value: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                let to: fn($type) -> $number = $to;
                to(*value).serialize(serializer)
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let number = <$number>::deserialize(deserializer)?;
                let from: fn($number) -> Option<$type> = $from;
                from(number).ok_or_else(|| D::Error::custom(concat!("a number is no ", $what)))
            }
        }
    };
}

number!(kind, function_abi::EventKind, u32, |kind| kind as u32, function_abi::EventKind::from_u32, "kind of events");
number!(
    priority,
    function_abi::Priority,
    i32,
    |priority| priority as i32,
    function_abi::Priority::from_i32,
    "priority"
);
number!(
    flags,
    function_abi::PublishFlags,
    i32,
    function_abi::PublishFlags::to_i32,
    function_abi::PublishFlags::from_i32,
    "flags of a publish"
);
