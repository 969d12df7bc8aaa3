//! What a job asks for, line by line: an item with the filter of its line, or the reason why there is no segment.

use std::collections::BTreeMap;

use item_affinity_datafusion::{ItemEntry, ItemFile};
use item_affinity_model::Vocabulary;
use serde_json::Value;

use crate::filter_error::FilterError;
use crate::filter_expression::FilterExpression;
use crate::filter_values::{BoundFilter, filter_values};
use crate::item_errors::ItemErrorRecord;

/// One entry of one input file.
pub(crate) struct Asked<'a> {
    /// The file's place among the input files.
    pub(crate) file: usize,
    pub(crate) entry: &'a ItemEntry,
    /// The group that ranks it, with the item, or its error record.
    pub(crate) request: Result<(usize, &'a str), ItemErrorRecord>,
}

/// Items with one filter, ranked by one plan.
pub(crate) struct Group {
    pub(crate) filter: Option<BoundFilter>,
    /// Distinct, in order; unknown ones are left out by the plan.
    pub(crate) items: Vec<String>,
}

/// All entries of a job, and the plans that they need: one for each distinct filter.
pub(crate) struct Requests<'a> {
    pub(crate) asked: Vec<Asked<'a>>,
    pub(crate) groups: Vec<Group>,
    /// Lines with filter values for a job without a filter.
    pub(crate) unused_values: usize,
}

impl<'a> Requests<'a> {
    pub(crate) fn of(files: &'a [ItemFile], filter: Option<&FilterExpression>, known: &Vocabulary) -> Self {
        let mut requests = Self { asked: Vec::new(), groups: Vec::new(), unused_values: 0 };
        // A filter's text tells it from others: it reads back as the same filter.
        let mut numbers = BTreeMap::<String, usize>::new();
        for (file, entry) in
            files.iter().enumerate().flat_map(|(n, file)| file.list.entries.iter().map(move |e| (n, e)))
        {
            let request = match &entry.item {
                Err(error) => {
                    Err(ItemErrorRecord { item_id: None, code: error.code.to_owned(), message: error.message.clone() })
                }
                Ok(id) => match bound(filter, entry) {
                    Err(error) => Err(ItemErrorRecord::of_filter(id, entry.line, &error)),
                    Ok(bound) => {
                        requests.unused_values += usize::from(filter.is_none() && has_values(entry));
                        let key = bound.as_ref().map(|bound| bound.0.to_string()).unwrap_or_default();
                        let next = requests.groups.len();
                        let group = *numbers.entry(key).or_insert(next);
                        if group == next {
                            requests.groups.push(Group { filter: bound, items: Vec::new() });
                        }
                        if let Some(group) = requests.groups.get_mut(group) {
                            group.items.push(id.clone());
                        }
                        match known.index_of(id) {
                            Some(_) => Ok((group, id.as_str())),
                            None => Err(ItemErrorRecord::not_in_model(id)),
                        }
                    }
                },
            };
            requests.asked.push(Asked { file, entry, request });
        }
        for group in &mut requests.groups {
            group.items.sort_unstable();
            group.items.dedup();
        }
        requests
    }

    /// The records of all entries that can have no segment.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (&Asked<'a>, &ItemErrorRecord)> {
        self.asked.iter().filter_map(|asked| asked.request.as_ref().err().map(|record| (asked, record)))
    }

    /// Readable entries beyond the first of their item and filter.
    pub(crate) fn duplicates(&self) -> usize {
        let readable = self.asked.iter().filter(|asked| asked.entry.item.is_ok()).count();
        let refused = self.errors().filter(|(_, record)| record.code == FILTER_VALUE).count();
        readable - refused - self.groups.iter().map(|group| group.items.len()).sum::<usize>().min(readable - refused)
    }

    /// Entries whose item id is a number in JSON.
    pub(crate) fn numbers(&self) -> usize {
        let is_number =
            |entry: &ItemEntry| matches!(entry.input.as_ref().map(|line| &line["itemId"]), Some(Value::Number(_)));
        self.asked.iter().filter(|asked| is_number(asked.entry)).count()
    }
}

/// The code of a record for a line whose filter values cannot be used.
pub(crate) const FILTER_VALUE: &str = "FILTER_VALUE";

fn bound(filter: Option<&FilterExpression>, entry: &ItemEntry) -> Result<Option<BoundFilter>, FilterError> {
    filter.map(|filter| filter.bind(&filter_values(entry.input.as_ref())?)).transpose()
}

fn has_values(entry: &ItemEntry) -> bool {
    entry.input.as_ref().is_some_and(|line| line.get("filterValues").is_some_and(|values| !values.is_null()))
}
