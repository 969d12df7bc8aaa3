//! Item factors laid out for the ranking kernel.

use ndarray::ArrayView2;
use pulp::{Arch, Simd, WithSimd};

use super::first_look::FirstLook;
use super::quantized::{self, QuantizedItems};

/// Item factors as the ranking kernel reads them: some items beside each other, hidden variable after hidden variable.
///
/// Made once for a request; one user after another is then multiplied with all items of a panel at once.
#[derive(Clone, Debug)]
pub struct ItemPanels {
    items: usize,
    dimension: usize,
    width: usize,
    /// panels × dimension × width; items that are not there are zeros.
    values: Vec<f32>,
    /// For a first look, where it is of use.
    quantized: Option<QuantizedItems>,
}

impl ItemPanels {
    /// Lays out these items.
    ///
    /// # Shapes
    /// item_factors: items × d
    /// # Cost
    /// a copy of the factors
    #[must_use]
    pub fn new(item_factors: ArrayView2<'_, f32>) -> Self {
        let (items, dimension) = item_factors.dim();
        let width = Arch::new().dispatch(Width { items });
        let mut values = vec![0.0; items.div_ceil(width) * dimension * width];
        for (item, factors) in item_factors.rows().into_iter().enumerate() {
            let panel = &mut values[item / width * dimension * width..][..dimension * width];
            for (of_panel, factor) in panel.chunks_exact_mut(width).zip(factors) {
                of_panel[item % width] = *factor;
            }
        }
        // To quantize a user takes about as long as a panel does.
        let is_of_use = width == quantized::WIDTH && width < items && quantized::DIMENSIONS.contains(&dimension);
        let quantized = (is_of_use && FirstLook::is_possible()).then(|| QuantizedItems::new(item_factors));
        Self { items, dimension, width, values, quantized }
    }

    /// How many items there are.
    #[must_use]
    pub fn items(&self) -> usize {
        self.items
    }

    /// Hidden variables of an item.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Items of a panel.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Bytes held.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        let quantized = self.quantized.as_ref().map_or(0, QuantizedItems::allocated_bytes);
        self.values.capacity() * size_of::<f32>() + quantized
    }

    /// Them in eight bits, if that is of use.
    pub(super) fn quantized(&self) -> Option<&QuantizedItems> {
        self.quantized.as_ref()
    }

    /// The values of a panel, and how many of its items are there.
    pub(super) fn panel(&self, number: usize) -> (&[f32], usize) {
        let length = self.dimension * self.width;
        (&self.values[number * length..][..length], self.width.min(self.items - number * self.width))
    }
}

/// Items whose sums the registers of this machine hold: two vectors of them, or one if that is enough, or as many as NEON has
/// for 16.
struct Width {
    items: usize,
}

impl WithSimd for Width {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        match size_of::<S::f32s>() / size_of::<f32>() {
            lanes @ (8 | 16) if self.items <= lanes => lanes,
            lanes => (2 * lanes).max(16),
        }
    }
}
