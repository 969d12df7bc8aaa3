//! Factors in eight bits, and how far their products may be from affinities.
//!
//! A row of factors `x` is `s·a + r`: a scale `s`, whole numbers `a` from −127 to 127, and what is left. So is a row of the other
//! side, `y = t·b + q`, and `|x·y − s·t·(a·b)| = |r·y + s·a·q| ≤ |r|·|y| + |s·a|·|q|`. Most pairs cannot reach a threshold even
//! so, which eight bits tell with a quarter of the arithmetic.

use ndarray::ArrayView2;
use pulp::{Arch, Simd, WithSimd};

use crate::simd::LONGEST_VECTOR;

/// Items of a panel that is quantized: those of the widest vectors.
pub(super) const WIDTH: usize = 32;
/// Items in a vector.
pub(super) const LANES: usize = LONGEST_VECTOR;
/// Hidden variables that one instruction adds up.
pub(super) const GROUP: usize = 4;
/// With more hidden variables a sum of 32 bits could overflow.
pub(super) const DIMENSIONS: std::ops::RangeInclusive<usize> = 1..=1 << 16;
/// Added to whole numbers of items, which are bytes without sign.
const OFFSET: i32 = 128;
/// Rows whose numbers are all smaller are what is left of zero; the scale of others is a number whose reciprocal is one too.
const TINY: f32 = 1e-30;
/// Sums of products of two rows whose norms are smaller cannot overflow on their way.
const HUGE: f32 = 1e18;
/// Adding it rounds to a whole number, which is in the last bits.
const ROUND: f32 = 12_582_912.0;

/// Users beside each other: as many at a time as registers hold sums for, beside what is multiplied.
pub(super) const USERS: usize = 12;

/// Users beside each other for a group of hidden variables, in whole numbers.
pub(super) type GroupOfUsers = [[i8; GROUP]; USERS];
/// Items of a panel for a group of hidden variables: those of each item beside each other.
pub(super) type Group = [[u8; LANES * GROUP]; WIDTH / LANES];

/// What is known of a quantized row.
struct Row {
    scale: f32,
    norm: f32,
    /// The norm of what is left.
    error: f32,
    /// Of the whole numbers.
    sum: i32,
}

/// Factors of items in eight bits, panel after panel.
#[derive(Clone, Debug)]
pub(super) struct QuantizedItems {
    /// Groups of a panel.
    groups: usize,
    values: Vec<Group>,
    panels: Vec<Bounds>,
}

/// What turns whole numbers into affinities, for the items of a panel.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    pub(super) scales: [f32; WIDTH],
    pub(super) norms: [f32; WIDTH],
    /// The largest part of a norm that is left.
    pub(super) error: f32,
}

impl QuantizedItems {
    /// # Shapes
    /// item_factors: items × d
    pub(super) fn new(item_factors: ArrayView2<'_, f32>) -> Self {
        let (items, dimension) = item_factors.dim();
        let (groups, panels) = (dimension.div_ceil(GROUP), items.div_ceil(WIDTH));
        let none = [[OFFSET.to_le_bytes()[0]; LANES * GROUP]; WIDTH / LANES];
        let mut values = vec![none; panels * groups];
        let nobody = Bounds { scales: [0.0; WIDTH], norms: [0.0; WIDTH], error: 0.0 };
        let mut bounds = vec![nobody; panels];
        let mut padded = Padded::new(dimension);
        for (item, row) in item_factors.rows().into_iter().enumerate() {
            let row = padded.quantize(pulp::Scalar, &row.to_vec());
            let (panel, of_panel) = (&mut values[item / WIDTH * groups..][..groups], item % WIDTH);
            for (group, numbers) in panel.iter_mut().zip(padded.groups()) {
                let to = &mut group[of_panel / LANES][of_panel % LANES * GROUP..][..GROUP];
                // Adds the offset: from −128 up becomes from 0 up.
                to.iter_mut().zip(numbers).for_each(|(to, number)| *to = number.cast_unsigned() ^ 0x80);
            }
            let bounds = &mut bounds[item / WIDTH];
            (bounds.scales[of_panel], bounds.norms[of_panel]) = (row.scale, row.norm);
            let error = if row.norm == 0.0 { 0.0 } else { row.error / row.norm };
            // A number that is none stays.
            if error.is_nan() || error > bounds.error {
                bounds.error = error;
            }
        }
        Self { groups, values, panels: bounds }
    }

    /// groups of a panel, and what they stand for
    pub(super) fn panel(&self, number: usize) -> (&[Group], &Bounds) {
        (&self.values[number * self.groups..][..self.groups], &self.panels[number])
    }

    /// Bytes held.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.values.capacity() * size_of::<Group>() + self.panels.capacity() * size_of::<Bounds>()
    }
}

/// Factors of the users of a tile in eight bits.
#[derive(Debug, Default)]
pub(super) struct QuantizedUsers {
    /// Groups of a user.
    groups: usize,
    /// blocks of users × groups; users that are not there are zeros
    whole: Vec<GroupOfUsers>,
    /// As many as users.
    pub(super) scales: Vec<f32>,
    /// How far affinities may be away for an item of norm 1 of which nothing is left.
    pub(super) errors: Vec<f32>,
    /// What an item adds to it for the part of its norm that is left.
    pub(super) norms: Vec<f32>,
    /// Where sums begin, so that offsets of items cancel out.
    pub(super) begins: Vec<i32>,
}

impl QuantizedUsers {
    /// Takes the users of a tile in the place of others.
    ///
    /// # Shapes
    /// user_factors: users × d, row-major
    #[allow(clippy::cast_precision_loss)] // a dimension, at most 65,536
    pub(super) fn take(&mut self, user_factors: &[f32], dimension: usize) {
        // Twice what sums of d products and the arithmetic of a bound are rounded by.
        let rounding = (dimension + 16) as f32 * f32::EPSILON;
        self.groups = dimension.div_ceil(GROUP);
        self.clear();
        let blocks = (user_factors.len() / dimension).div_ceil(USERS);
        self.whole.resize(blocks * self.groups, [[0; GROUP]; USERS]);
        Arch::new().dispatch(Take { users: self, user_factors, dimension, rounding });
    }

    /// Forgets them.
    pub(super) fn clear(&mut self) {
        self.whole.clear();
        let numbers = [&mut self.scales, &mut self.errors, &mut self.norms];
        numbers.into_iter().for_each(Vec::clear);
        self.begins.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.scales.len()
    }

    /// The whole numbers of a block of users, group after group.
    pub(super) fn block(&self, number: usize) -> &[GroupOfUsers] {
        &self.whole[number * self.groups..][..self.groups]
    }
}

struct Take<'a> {
    users: &'a mut QuantizedUsers,
    user_factors: &'a [f32],
    dimension: usize,
    rounding: f32,
}

impl WithSimd for Take<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { users, user_factors, dimension, rounding } = self;
        let mut padded = Padded::new(dimension);
        for (user, factors) in user_factors.chunks_exact(dimension).enumerate() {
            let row = padded.quantize(simd, factors);
            let block = &mut users.whole[user / USERS * users.groups..][..users.groups];
            block.iter_mut().zip(padded.groups()).for_each(|(to, numbers)| to[user % USERS] = *numbers);
            users.scales.push(row.scale);
            users.errors.push(row.error + rounding * row.norm);
            users.norms.push(row.norm + row.error);
            users.begins.push(-OFFSET * row.sum);
        }
    }
}

/// A row filled up with zeros, and its whole numbers.
#[derive(Debug)]
struct Padded {
    factors: Vec<[f32; LANES]>,
    /// Whole numbers that [`ROUND`] was added to.
    rounded: Vec<[f32; LANES]>,
    whole: Vec<[i8; LANES]>,
}

impl Padded {
    fn new(dimension: usize) -> Self {
        let chunks = dimension.div_ceil(LANES);
        let zeros = vec![[0.0; LANES]; chunks];
        Self { factors: zeros.clone(), rounded: zeros, whole: vec![[0; LANES]; chunks] }
    }

    /// Makes whole numbers of a row. What is not finite, or so large that sums may overflow, has an error that is no number.
    #[inline(always)] // becomes vector code where it is dispatched
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // whole numbers up to 127·d
    fn quantize<S: Simd>(&mut self, simd: S, row: &[f32]) -> Row {
        let Self { factors, rounded, whole } = self;
        factors.as_flattened_mut()[..row.len()].copy_from_slice(row);
        let (factors, _) = S::as_simd_f32s(factors.as_flattened());
        let mut most = simd.splat_f32s(0.0);
        for factors in factors {
            most = simd.max_f32s(simd.abs_f32s(*factors), most);
        }
        let most = simd.reduce_max_f32s(most);
        if most < TINY {
            whole.fill([0; LANES]);
            let is_number = !row.iter().any(|factor| factor.is_nan());
            let norm = if is_number { 1.001 * most * (row.len() as f32).sqrt() } else { f32::NAN };
            return Row { scale: 0.0, norm, error: norm, sum: 0 };
        }
        let (scale, per_scale) = (most / 127.0, simd.splat_f32s(127.0 / most));
        let round = simd.splat_f32s(ROUND);
        let [mut squares, mut left, mut sums] = [simd.splat_f32s(0.0); 3];
        for (factors, rounded) in factors.iter().zip(S::as_mut_simd_f32s(rounded.as_flattened_mut()).0) {
            let exact = simd.mul_f32s(*factors, per_scale);
            *rounded = simd.add_f32s(exact, round);
            let nearest = simd.sub_f32s(*rounded, round);
            let rest = simd.sub_f32s(exact, nearest);
            squares = simd.mul_add_f32s(exact, exact, squares);
            left = simd.mul_add_f32s(rest, rest, left);
            sums = simd.add_f32s(sums, nearest);
        }
        for (whole, rounded) in whole.iter_mut().zip(rounded) {
            *whole = rounded.map(|rounded| rounded.to_bits() as i8);
        }
        let norm = scale * simd.reduce_sum_f32s(squares).sqrt();
        let error = if norm < HUGE { scale * simd.reduce_sum_f32s(left).sqrt() } else { f32::NAN };
        Row { scale, norm, error, sum: simd.reduce_sum_f32s(sums) as i32 }
    }

    /// Group after group of the whole numbers.
    #[inline(always)]
    fn groups(&self) -> &[[i8; GROUP]] {
        self.whole.as_flattened().as_chunks().0
    }
}
