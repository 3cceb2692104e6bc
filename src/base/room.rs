/// Makes room for `more` elements, and for an eighth beyond what is there: twice as much, as is usual, would be a third of all memory.
pub fn make_room<T>(vec: &mut Vec<T>, more: usize) {
    if vec.capacity() - vec.len() < more {
        vec.reserve_exact(more.max(vec.len() / 8));
    }
}
