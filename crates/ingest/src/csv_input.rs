//! CSV data sets as Amazon Personalize takes them: UTF-8, an unquoted header in the order of the schema, strict values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, StringArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type, Schema, SchemaRef,
};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow_csv::ReaderBuilder;
use arrow_csv::reader::Decoder;
use futures::stream::{BoxStream, StreamExt, TryStreamExt, try_unfold};
use item_affinity_storage::{Bytes, InputFile, Result as StorageResult, Stores, object_chunks};

use crate::dataset_schema::{DatasetSchema, FieldKind, SchemaField};
use crate::error::{Error, Names, Place, Result};
use crate::schema::{ITEM_ID, TIMESTAMP, USER_ID};

/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;
/// Bytes of the header at most.
const LONGEST_HEADER: usize = 64 << 10;
/// Bytes of one batch at most: a quote that is never closed must not hold a whole file.
const MOST_BATCH_BYTES: usize = 256 << 20;

/// A CSV object whose header is that of its schema.
#[derive(Clone)]
pub(crate) struct CsvInput {
    stores: Stores,
    file: InputFile,
    schema: Arc<DatasetSchema>,
    arrow: SchemaRef,
}

impl CsvInput {
    /// Opens an object and compares its header with the schema.
    pub(crate) async fn open(stores: &Stores, file: &InputFile, schema: &Arc<DatasetSchema>) -> Result<Self> {
        let mut chunks = object_chunks(stores, file)?;
        let first = chunks.try_next().await?.unwrap_or_default();
        let name = file.location.to_string();
        let wrong = |what: String, cure: &str| Error::Csv {
            what,
            place: Box::new(Place { file: name.clone(), row: None, column: None }),
            cure: cure.to_owned(),
        };
        if first.starts_with(b"PAR1") {
            return Err(wrong("this is Parquet, and a schema was given".to_owned(), "leave the schema out"));
        }
        let line = first.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if line.len() > LONGEST_HEADER {
            return Err(wrong("no header in the first 64 KiB".to_owned(), "write the names of the columns first"));
        }
        let text =
            std::str::from_utf8(line).map_err(|_| wrong("not UTF-8 (UTF-16?)".to_owned(), "save it as UTF-8"))?;
        let text = text.trim_start_matches('\u{feff}').trim_end_matches('\r');
        let expected = schema.fields.iter().map(|field| field.name.clone()).collect::<Vec<_>>();
        if !text.split(',').eq(expected.iter().map(String::as_str)) {
            let found = text.split(',').map(str::to_owned).collect::<Vec<_>>();
            let what = format!("the header is [{}], the schema says [{}]", Names(&found), Names(&expected));
            return Err(wrong(what, "write the names of the schema in its order, without quotes"));
        }
        Ok(Self { stores: stores.clone(), file: file.clone(), arrow: schema.arrow(), schema: Arc::clone(schema) })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.arrow
    }

    /// Streams some columns, in batches of at most `batch_size` rows.
    pub(crate) fn stream(
        &self,
        columns: &[usize],
        batch_size: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        // Values are read as text and converted below: the converters of the engine take TRUE for true and nan for a
        // number, and their messages repeat the row.
        let texts = self.arrow.fields().iter().map(|field| Field::new(field.name(), DataType::Utf8, true));
        let decoder = ReaderBuilder::new(Arc::new(Schema::new(texts.collect::<Vec<_>>())))
            .with_header(true)
            .with_batch_size(batch_size)
            .with_projection(columns.to_vec())
            .build_decoder();
        let fields = columns.iter().filter_map(|column| self.schema.fields.get(*column)).cloned().collect::<Vec<_>>();
        let reading = Reading {
            chunks: object_chunks(&self.stores, &self.file)?,
            decoder,
            buffer: Bytes::new(),
            file: self.file.location.to_string(),
            schema: Arc::new(self.arrow.project(columns)?),
            fields,
            row: 0,
            ended: false,
        };
        Ok(try_unfold(
            reading,
            |mut reading| async move { Ok(reading.next_batch().await?.map(|batch| (batch, reading))) },
        )
        .boxed())
    }
}

/// Reads whole CSV files of a schema, for data that is small enough to be held.
///
/// # Errors
/// Storage errors; [`Error::Csv`] for a file that is not what its schema says.
pub async fn read_csv(stores: &Stores, files: &[InputFile], schema: &Arc<DatasetSchema>) -> Result<CsvRows> {
    let all = (0..schema.fields.len()).collect::<Vec<_>>();
    let mut rows = CsvRows { schema: schema.arrow(), batches: Vec::new() };
    for file in files {
        let input = CsvInput::open(stores, file, schema).await?;
        rows.batches.extend(input.stream(&all, BATCH_ROWS)?.try_collect::<Vec<_>>().await?);
    }
    Ok(rows)
}

/// The rows of CSV files, with the types of their schema.
#[derive(Clone, Debug)]
pub struct CsvRows {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

/// A CSV object being read.
struct Reading {
    chunks: BoxStream<'static, StorageResult<Bytes>>,
    decoder: Decoder,
    buffer: Bytes,
    file: String,
    schema: SchemaRef,
    fields: Vec<SchemaField>,
    /// Rows given so far.
    row: u64,
    ended: bool,
}

impl Reading {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let mut taken = 0;
        loop {
            if self.buffer.is_empty() && !self.ended {
                match self.chunks.try_next().await? {
                    Some(bytes) => self.buffer = bytes,
                    None => self.ended = true,
                }
            }
            let decoded = self.decoder.decode(&self.buffer).map_err(|error| self.unreadable(&error))?;
            if decoded == 0 {
                break;
            }
            taken += decoded;
            if taken > MOST_BATCH_BYTES {
                let what = format!("one batch of rows takes more than {MOST_BATCH_BYTES} bytes");
                return Err(self.wrong(what, None, None, "close the quotes of values"));
            }
            let rest = self.buffer.slice(decoded..);
            self.buffer = rest;
        }
        let Some(texts) = self.decoder.flush().map_err(|error| self.unreadable(&error))? else { return Ok(None) };
        let mut columns = Vec::with_capacity(self.fields.len());
        for (field, column) in self.fields.iter().zip(texts.columns()) {
            columns.push(self.convert(field, column.as_string::<i32>())?);
        }
        self.row += texts.num_rows() as u64;
        Ok(Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?))
    }

    /// Values of one type; an empty cell is null.
    fn convert(&self, field: &SchemaField, texts: &StringArray) -> Result<ArrayRef> {
        // Ids and times that are absent are counted with the other rejected rows.
        let counted = [USER_ID, ITEM_ID, TIMESTAMP].contains(&field.name.as_str());
        if !field.nullable && !counted && texts.null_count() > 0 {
            let at = (0..texts.len()).find(|row| texts.is_null(*row));
            let cure = format!("fill it in, or declare {} as [\"null\", \"{}\"]", field.name, field.kind.name());
            return Err(self.wrong("an empty cell".to_owned(), at, Some(&field.name), &cure));
        }
        Ok(match field.kind {
            FieldKind::String => Arc::new(texts.clone()),
            FieldKind::Boolean => {
                let flags = texts.iter().enumerate().map(|(row, text)| match text {
                    None => Ok(None),
                    Some("true") => Ok(Some(true)),
                    Some("false") => Ok(Some(false)),
                    Some(_) => Err(self.no_value(field, row, "write true or false, in lower case")),
                });
                Arc::new(flags.collect::<Result<BooleanArray>>()?)
            }
            FieldKind::Int => self.numbers::<Int32Type>(field, texts, |_| true)?,
            FieldKind::Long => self.numbers::<Int64Type>(field, texts, |_| true)?,
            FieldKind::Float => self.numbers::<Float32Type>(field, texts, |number| number.is_finite())?,
            FieldKind::Double => self.numbers::<Float64Type>(field, texts, |number| number.is_finite())?,
        })
    }

    fn numbers<T: ArrowPrimitiveType>(
        &self,
        field: &SchemaField,
        texts: &StringArray,
        usable: impl Fn(T::Native) -> bool,
    ) -> Result<ArrayRef>
    where
        T::Native: std::str::FromStr,
    {
        let numbers = texts.iter().enumerate().map(|(row, text)| {
            let Some(text) = text else { return Ok(None) };
            let number = text.parse::<T::Native>().ok().filter(|number| usable(*number));
            number.map(Some).ok_or_else(|| self.no_value(field, row, "write it in digits, such as 1700000000 or -1.5"))
        });
        Ok(Arc::new(numbers.collect::<Result<PrimitiveArray<T>>>()?))
    }

    fn no_value(&self, field: &SchemaField, row: usize, cure: &str) -> Error {
        self.wrong(format!("a value that is no {}", field.kind.name()), Some(row), Some(&field.name), cure)
    }

    /// Messages of the decoder hold numbers of lines and fields, never values.
    fn unreadable(&self, error: &ArrowError) -> Error {
        let text = match error {
            ArrowError::CsvError(text) => text.clone(),
            _ => "cannot be read as CSV".to_owned(),
        };
        let mut characters = text.chars();
        let first = characters.next().map(|c| c.to_lowercase().to_string()).unwrap_or_default();
        let what = format!("{first}{}", characters.as_str());
        self.wrong(what, None, None, "write each row with the columns of the header, texts with commas in quotes")
    }

    /// A row of the batch that is being converted becomes a row of the file, from 0.
    fn wrong(&self, what: String, row: Option<usize>, column: Option<&str>, cure: &str) -> Error {
        let row = row.map(|row| self.row + row as u64);
        let place = Place { file: self.file.clone(), row, column: column.map(str::to_owned) };
        Error::Csv { what, place: Box::new(place), cure: cure.to_owned() }
    }
}
