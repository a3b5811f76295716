//! Sorting with little code: the library's sort adds some ten kilobytes for each sorted type to every loaded filter.
//! Nothing here is on the request path, and most of what is sorted is short.

/// Heap sort: O(n log n), in place, not stable.
pub fn sort_by<T>(items: &mut [T], less: impl Fn(&T, &T) -> bool) {
    for top in (0..items.len() / 2).rev() {
        sift(items, top, items.len(), &less);
    }
    for end in (1..items.len()).rev() {
        items.swap(0, end);
        sift(items, 0, end, &less);
    }
}

/// Sorts by the items' own order; not stable.
pub fn sort<T: Ord>(items: &mut [T]) {
    sort_by(items, |one, other| one < other);
}

/// The lower median of `values`, whose order changes; `None` of none.
pub fn lower_median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len().checked_sub(1)? / 2;
    Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

/// Sorts `items` by hashes, in linear time if these are spread evenly: each item is put into the bucket that its place is
/// likely to be in, and each bucket is sorted.
pub fn sort_by_hash(items: &mut [u32], hash: impl Fn(u32) -> u64) {
    let unsorted = items.to_vec();
    let bucket = |item: u32| (((hash(item) >> 32) * unsorted.len() as u64) >> 32) as usize;
    let mut starts = vec![0u32; unsorted.len()];
    for item in &unsorted {
        starts.get_mut(bucket(*item)).into_iter().for_each(|count| *count += 1);
    }
    let mut before = 0;
    for start in &mut starts {
        before += core::mem::replace(start, before);
    }
    for item in &unsorted {
        let Some(start) = starts.get_mut(bucket(*item)) else { continue };
        items.get_mut(*start as usize).into_iter().for_each(|place| *place = *item);
        *start += 1;
    }
    let mut start = 0;
    for end in starts {
        if let Some(bucket) = items.get_mut(start..end as usize) {
            sort_by(bucket, |one, other| hash(*one) < hash(*other));
        }
        start = end as usize;
    }
}

/// Moves the item at `top` down in the heap of the first `end` items until none below it is larger.
fn sift<T>(items: &mut [T], mut top: usize, end: usize, less: &impl Fn(&T, &T) -> bool) {
    let smaller = |items: &[T], one: usize, other: usize| match (items.get(one), items.get(other)) {
        (Some(one), Some(other)) => less(one, other),
        _ => false,
    };
    loop {
        let mut largest = top;
        for below in [2 * top + 1, 2 * top + 2] {
            if below < end && smaller(items, largest, below) {
                largest = below;
            }
        }
        if largest == top {
            return;
        }
        items.swap(top, largest);
        top = largest;
    }
}

/// Insertion sort for few items; stable.
pub fn sort_few_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    for end in 1..items.len() {
        let mut at = end;
        while at > 0 && matches!((items.get(at - 1), items.get(at)), (Some(a), Some(b)) if key(b) < key(a)) {
            items.swap(at - 1, at);
            at -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn sorts_as_the_library_does() {
        let mut rng = Rng::new(4);
        for length in (0..40).chain([1000]) {
            let items: Vec<(u32, usize)> = (0..length).map(|at| (rng.below(20), at)).collect();
            let (mut whole, mut few, mut wanted) = (items.clone(), items.clone(), items);
            wanted.sort_unstable();
            sort(&mut whole);
            // Positions rise, so a stable sort gives the same order.
            sort_few_by_key(&mut few, |item| item.0);
            assert_eq!((&whole, &few), (&wanted, &wanted), "{length}");
        }
        for length in [0, 1, 2, 1000] {
            let hashes: Vec<u64> = (0..length).map(|_| rng.next_u64()).collect();
            let hash = |at: u32| hashes[at as usize];
            let mut items: Vec<u32> = (0..length as u32).rev().collect();
            sort_by_hash(&mut items, hash);
            assert!(items.len() == length && items.is_sorted_by_key(|at| hash(*at)), "{length}");
            // All in one bucket.
            sort_by_hash(&mut items, |at| hash(at) >> 33);
            assert!(items.is_sorted_by_key(|at| hash(*at) >> 33), "{length}");
        }
        let mut floats = [2.0, f64::NAN, -1.0, 0.5];
        sort_by(&mut floats, |a, b| a.total_cmp(b).is_lt());
        assert_eq!(floats[..3], [-1.0, 0.5, 2.0]);
    }
}
