//! What is known about items or users besides their interactions, as numbers.

use std::ops::Range;

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::csr::Csr;
use crate::error::{Error, Result, same_length};

/// How the values of a column become features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// One feature for each value, 1 where a row has it; of a row with n values each counts 1/√n.
    Categories {
        /// The values, sorted by bytes.
        values: Vec<String>,
    },
    /// One feature, `(value − mean) / deviation` within [`MOST_DEVIATIONS`]; 0 where a row has no value.
    Number {
        /// The mean of the values.
        mean: f64,
        /// Their standard deviation, above 0.
        deviation: f64,
    },
}

/// Standardized numbers end here: an outlier is no more than a large value.
pub const MOST_DEVIATIONS: f64 = 3.0;

/// A column that became features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttributeColumn {
    /// Its own name.
    pub name: String,
    /// How its values become features.
    pub encoding: Encoding,
}

impl AttributeColumn {
    /// How many features it has.
    #[must_use]
    pub fn features(&self) -> usize {
        match &self.encoding {
            Encoding::Categories { values } => values.len(),
            Encoding::Number { .. } => 1,
        }
    }
}

/// The features of items or users: a sparse matrix with one row per id of a vocabulary, in its order.
///
/// A row without features is one of which nothing is known; it is fitted as if there were no attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct Attributes {
    matrix: Csr,
    columns: Vec<AttributeColumn>,
}

impl Attributes {
    /// Takes features with the columns that they come from, side by side in this order.
    ///
    /// # Shapes
    /// matrix: rows × the features of all columns
    /// # Errors
    /// [`Error::Shape`] when the columns have more or fewer features than the matrix
    pub fn new(matrix: Csr, columns: Vec<AttributeColumn>) -> Result<Self> {
        same_length("attributes", columns.iter().map(AttributeColumn::features).sum(), matrix.columns())?;
        Ok(Self { matrix, columns })
    }

    /// The features, rows × features.
    #[must_use]
    pub fn matrix(&self) -> &Csr {
        &self.matrix
    }

    /// The columns, in the order of their features.
    #[must_use]
    pub fn columns(&self) -> &[AttributeColumn] {
        &self.columns
    }

    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.matrix.rows()
    }

    /// The features of each column.
    pub fn features(&self) -> impl Iterator<Item = (&AttributeColumn, Range<usize>)> {
        let mut end = 0;
        self.columns.iter().map(move |column| {
            let start = end;
            end += column.features();
            (column, start..end)
        })
    }

    /// A feature in words: `BRAND=Private`, or the name of a numeric column.
    #[must_use]
    pub fn name_of(&self, feature: usize) -> Option<String> {
        let (column, range) = self.features().find(|(_, range)| range.contains(&feature))?;
        Some(match &column.encoding {
            Encoding::Categories { values } => format!("{}={}", column.name, values[feature - range.start]),
            Encoding::Number { .. } => column.name.clone(),
        })
    }

    /// How many rows have a feature.
    #[must_use]
    pub fn known_rows(&self) -> usize {
        self.matrix.indptr().windows(2).filter(|bounds| bounds[0] < bounds[1]).count()
    }

    /// One feature that all rows with features share.
    pub(crate) fn all_alike(&self) -> Result<Self> {
        let known = |bounds: &[usize]| usize::from(bounds[0] < bounds[1]);
        let mut indptr = vec![0; self.rows() + 1];
        for (row, bounds) in self.matrix.indptr().windows(2).enumerate() {
            indptr[row + 1] = indptr[row] + known(bounds);
        }
        let count = indptr[self.rows()];
        let column =
            AttributeColumn { name: "known".to_string(), encoding: Encoding::Number { mean: 0.0, deviation: 1.0 } };
        Self::new(Csr::new(indptr, vec![0; count], vec![1.0; count], 1)?, vec![column])
    }

    /// The factors that the features of each row lead to expect: the row's features times `weights`.
    ///
    /// # Shapes
    /// weights: features × d, as [`Factors`](crate::Factors) holds them; out: rows × d, zeros for a row without features
    /// # Units
    /// dimensionless
    /// # Errors
    /// [`Error::Shape`] for weights of other features
    /// # Cost
    /// nnz·d multiply-adds on all threads; the bits are the same for any number of them, and for a row whatever other
    /// rows there are
    /// # Source
    /// Agarwal, Chen, *Regression-based latent factor models*, 2009, eq. 3
    pub fn prior_means(&self, weights: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        same_length("weights", self.matrix.columns(), weights.nrows())?;
        let (rows, d) = (self.rows(), weights.ncols());
        let weights = weights.as_standard_layout();
        let weights = weights.as_slice().unwrap_or_default();
        let mut out = vec![0f32; rows * d];
        if d > 0 {
            out.par_chunks_mut(d).enumerate().for_each(|(row, out)| {
                // Written before it is read: see `side_information`.
                out.fill(0.0);
                let (features, values) = self.matrix.row(row);
                for (feature, value) in features.iter().zip(values) {
                    let start = *feature as usize * d;
                    out.iter_mut().zip(&weights[start..start + d]).for_each(|(out, weight)| *out += value * weight);
                }
            });
        }
        Array2::from_shape_vec((rows, d), out).map_err(|_| Error::Shape {
            name: "prior means",
            expected: rows * d,
            actual: 0,
        })
    }
}

/// What is known about the items and the users of a fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SideInformation {
    /// One row per item.
    pub items: Option<Attributes>,
    /// One row per user.
    pub users: Option<Attributes>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ndarray::array;

    use super::*;

    fn small() -> Attributes {
        let columns = vec![
            AttributeColumn {
                name: "genre".into(),
                encoding: Encoding::Categories { values: vec!["drama".into(), "horror".into()] },
            },
            AttributeColumn { name: "price".into(), encoding: Encoding::Number { mean: 2.0, deviation: 0.5 } },
        ];
        let half = 0.5f32.sqrt();
        let matrix = Csr::new(vec![0, 3, 3, 4], vec![0, 1, 2, 2], vec![half, half, 2.0, -1.0], 3).unwrap();
        Attributes::new(matrix, columns).unwrap()
    }

    #[test]
    fn features_are_named_by_their_column_and_value() {
        let attributes = small();
        let names: Vec<_> = (0..4).map(|feature| attributes.name_of(feature)).collect();
        assert_eq!(names, [Some("genre=drama".into()), Some("genre=horror".into()), Some("price".into()), None]);
        assert_eq!((attributes.rows(), attributes.known_rows()), (3, 2));
    }

    #[test]
    fn prior_means_by_hand() {
        let means = small().prior_means(array![[1f32, 0.0], [1.0, 2.0], [0.5, -1.0]].view()).unwrap();
        let half = 0.5f32.sqrt();
        let expected = array![[half + half + 1.0, 2.0 * half - 2.0], [0.0, 0.0], [-0.5, 1.0]];
        assert!(means.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{means}");
        assert!(matches!(small().prior_means(array![[1f32]].view()), Err(Error::Shape { name: "weights", .. })));
    }

    #[test]
    fn columns_must_account_for_every_feature() {
        let matrix = Csr::new(vec![0], vec![], vec![], 2).unwrap();
        assert!(matches!(Attributes::new(matrix, vec![]), Err(Error::Shape { expected: 0, actual: 2, .. })));
    }
}
