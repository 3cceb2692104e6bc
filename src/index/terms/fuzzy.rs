/// Whether one text becomes the other by at most `most` insertions, deletions and replacements of a character.
pub(super) fn is_near(left: &str, right: &str, most: usize) -> bool {
    if left.len().abs_diff(right.len()) > most * 4 {
        return false;
    }
    let right: Vec<char> = right.chars().collect();
    // The distance of what has been looked at of the left text from each beginning of the right one.
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, c) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        let mut least = row[0];
        for (index, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(*other != c);
            diagonal = row[index + 1];
            row[index + 1] = replaced.min(diagonal + 1).min(row[index] + 1);
            least = least.min(row[index + 1]);
        }
        if least > most {
            return false;
        }
    }
    row[right.len()] <= most
}
