//! The schema in a footer: a flat list that claims to be a tree.

use crate::ParquetFault;
use crate::footer::{Check, Refusal};
use crate::footer_shapes::LOGICAL_TYPE;
use crate::location::printable;
use crate::thrift::{Broken, Kind, Reader};

const MAX_DEPTH: usize = 32;
const MAX_LEAVES: usize = 2_000;
const MAX_SCHEMA_ELEMENTS: usize = MAX_LEAVES * MAX_DEPTH;

/// The leaf columns of the schema tree.
pub(crate) struct Schema {
    /// Their full names, in file order.
    pub(crate) leaves: Vec<String>,
}

impl Schema {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Check<Self> {
        let limit = |reason: String| Refusal::new(ParquetFault::SchemaLimit, reason);
        let (kind, count) = reader.list()?;
        if kind != Kind::Struct && count > 0 {
            return Err(Broken("the schema is not a list of elements").into());
        }
        if count == 0 || count > MAX_SCHEMA_ELEMENTS {
            return Err(limit(format!("the schema has {count} elements, the limit is {MAX_SCHEMA_ELEMENTS}")));
        }
        let mut leaves = Vec::new();
        // Children that each open group still waits for, with the name of the group.
        let mut open: Vec<(u32, String)> = Vec::new();
        for index in 0..count {
            let (name, children) = Self::element(reader)?;
            if index > 0 {
                let Some((left, _)) = open.last_mut() else {
                    return Err(limit("the schema has elements outside its tree".to_owned()));
                };
                *left -= 1;
            }
            let children =
                u32::try_from(children).map_err(|_| limit(format!("a schema element has {children} children")))?;
            if children as usize > count - index - 1 {
                return Err(limit(format!("a schema element has {children} children in a schema of {count} elements")));
            }
            if index == 0 && children == 0 && count == 1 {
                break;
            }
            if children > 0 || index == 0 {
                if open.len() >= MAX_DEPTH {
                    return Err(limit(format!("the schema is nested more than {MAX_DEPTH} deep")));
                }
                open.push((children, name));
            } else {
                if leaves.len() == MAX_LEAVES {
                    return Err(limit(format!("the schema has more than {MAX_LEAVES} columns")));
                }
                let groups = open.iter().skip(1).map(|(_, group)| group.as_str());
                leaves.push(groups.chain([name.as_str()]).collect::<Vec<_>>().join("."));
            }
            while open.last().is_some_and(|(left, _)| *left == 0) {
                open.pop();
            }
        }
        if open.is_empty() { Ok(Self { leaves }) } else { Err(limit("the schema ends inside its tree".to_owned())) }
    }

    fn element(reader: &mut Reader<'_>) -> Check<(String, i32)> {
        let (mut name, mut children) = (String::new(), 0);
        reader.fields(|reader, field| {
            match field.id {
                1 | 2 | 3 | 6 | 7 | 8 | 9 => {
                    field.expect(Kind::I32)?;
                    reader.i32()?;
                }
                4 => {
                    field.expect(Kind::Binary)?;
                    name = printable(&String::from_utf8_lossy(reader.binary()?));
                }
                5 => {
                    field.expect(Kind::I32)?;
                    children = reader.i32()?;
                }
                10 => reader.skip_as(field.kind, &LOGICAL_TYPE)?,
                _ => return Ok::<_, Broken>(false),
            }
            Ok(true)
        })?;
        Ok((name, children))
    }
}
