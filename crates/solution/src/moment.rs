//! Epoch seconds as people read them.

use arrow::array::TimestampSecondArray;
use arrow::util::display::array_value_to_string;

/// Epoch seconds as `2026-11-23 22:51:00`, in UTC; as the bare number when they are beyond the calendar.
#[must_use]
pub fn moment(seconds: i64) -> String {
    array_value_to_string(&TimestampSecondArray::from(vec![seconds]), 0)
        .map_or_else(|_| seconds.to_string(), |text| text.replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn moments_are_read_in_utc() {
        assert_eq!(moment(1_700_000_000), "2023-11-14 22:13:20");
        assert_eq!(moment(-1), "1969-12-31 23:59:59");
    }
}
