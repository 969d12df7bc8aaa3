//! The rules that a Parquet object may break, with their codes and cures.

/// The rule that a Parquet object breaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
#[non_exhaustive]
pub enum ParquetFault {
    /// The object has no bytes.
    EmptyObject,
    /// The object is shorter than the smallest Parquet file.
    TooShort,
    /// The magic bytes are not those of Parquet.
    NotParquet,
    /// The footer or a column is encrypted.
    Encrypted,
    /// The footer length is 0, larger than the file or over the cap.
    FooterLength,
    /// The footer is not the Thrift structure that Parquet prescribes.
    FooterDamaged,
    /// The schema is not a tree, too deep or too wide.
    SchemaLimit,
    /// Too many row groups or column chunks, or a row group without a chunk for each column.
    RowGroupLimit,
    /// Row counts contradict each other.
    RowCount,
    /// A column chunk lies outside the data part of the file.
    ChunkRange,
    /// The columns asked for decode to more bytes than the budget.
    DecodedBudget,
    /// A page cannot be decoded.
    Page,
    /// A column uses a codec that this program does not have.
    Codec,
    /// The object changed after it was listed.
    InputChanged,
    /// The decoder gave up in a way that is its own defect.
    DecoderPanic,
    /// The process that decoded the object died.
    DecoderDied,
}

impl ParquetFault {
    /// The stable code that starts the message.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::EmptyObject => "ERR_EMPTY_OBJECT",
            Self::TooShort => "ERR_TOO_SHORT",
            Self::NotParquet => "ERR_NOT_PARQUET",
            Self::Encrypted => "ERR_ENCRYPTED",
            Self::FooterLength => "ERR_FOOTER_LENGTH",
            Self::FooterDamaged => "ERR_FOOTER_DAMAGED",
            Self::SchemaLimit => "ERR_SCHEMA_LIMIT",
            Self::RowGroupLimit => "ERR_ROW_GROUP_LIMIT",
            Self::RowCount => "ERR_ROW_COUNT",
            Self::ChunkRange => "ERR_CHUNK_RANGE",
            Self::DecodedBudget => "ERR_DECODED_BUDGET",
            Self::Page => "ERR_PAGE",
            Self::Codec => "ERR_CODEC",
            Self::InputChanged => "ERR_INPUT_CHANGED",
            Self::DecoderPanic => "ERR_DECODER_PANIC",
            Self::DecoderDied => "ERR_DECODER_DIED",
        }
    }

    /// One thing that a person can do about it.
    #[must_use]
    pub fn cure(self) -> &'static str {
        match self {
            Self::EmptyObject | Self::TooShort => "upload the file again, or remove it",
            Self::NotParquet => "give Parquet files, or convert this one",
            Self::Encrypted => "write the file without encryption: this program reads no encrypted Parquet",
            Self::FooterLength | Self::FooterDamaged | Self::ChunkRange | Self::RowCount | Self::Page => {
                "upload or write the file again"
            }
            Self::SchemaLimit | Self::RowGroupLimit => "write the file again with fewer columns or larger row groups",
            Self::DecodedBudget => "split the file, or leave it out if you did not write it",
            Self::Codec => "write the file with zstd, snappy, lz4_raw, gzip, brotli or no compression",
            Self::InputChanged => "run the job again when nobody writes to the input",
            Self::DecoderPanic | Self::DecoderDied => {
                "write the file again; please report it if other readers accept it"
            }
        }
    }
}
