//! An address as key files and their names hold it: 40 digits, without the `0x` that some programs
//! put there anyway.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::types::{Address, InvalidValue};

pub(super) fn digits(address: Address) -> String {
    address.to_string().split_off("0x".len())
}

fn parse(text: &str) -> Result<Address, InvalidValue> {
    if text.starts_with("0x") { text.parse() } else { format!("0x{text}").parse() }
}

/// The first address in the name of a file.
pub(super) fn in_name(path: &Path) -> Option<Address> {
    let name = path.file_name()?.to_str()?;
    name.split(|c: char| !c.is_ascii_alphanumeric()).find_map(|part| parse(part).ok())
}

pub(super) fn serialize<S: Serializer>(
    address: &Option<Address>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    address.map(digits).serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Address>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.as_deref().map(parse).transpose().map_err(D::Error::custom)
}
