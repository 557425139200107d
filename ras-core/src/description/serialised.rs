//! Descriptions in a serialised form, for example JSON.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Description, Value};

impl Serialize for Description {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.fields.iter().map(|(name, value)| (name, value)))
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Text(text) => serializer.serialize_str(text),
            Value::Number(number) => serializer.serialize_u64(*number),
            Value::Hex(_) | Value::Bytes(_) => serializer.serialize_str(&self.to_string()),
            Value::Flags(flags) => flags.serialize(serializer),
            Value::Texts(texts) => texts.serialize(serializer),
            Value::Group(group) => group.serialize(serializer),
            Value::List(groups) => groups.serialize(serializer),
        }
    }
}

/// Every string is a [`Value::Text`], and every list of strings is [`Value::Texts`].
impl<'de> Deserialize<'de> for Description {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Description;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Description, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    fields.push((Cow::Owned(name), value));
                }
                Ok(Description { fields })
            }
        }

        deserializer.deserialize_map(Object)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a whole number, an object, or a list of texts or objects")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_string()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
                Ok(Value::Number(number))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
                Description::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Value::Group)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let (mut texts, mut groups) = (Vec::new(), Vec::new());
                while let Some(item) = items.next_element::<Value>()? {
                    match item {
                        Value::Text(text) if groups.is_empty() => texts.push(text),
                        Value::Group(group) if texts.is_empty() => groups.push(group),
                        _ => return Err(A::Error::custom("a list has either texts or objects")),
                    }
                }
                Ok(if groups.is_empty() { Value::Texts(texts) } else { Value::List(groups) })
            }
        }

        deserializer.deserialize_any(Any)
    }
}
