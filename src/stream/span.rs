use super::plan::Window;

/// The windows of a row of `time`, by ascending end, as start and end: in `found`, in place of what was there. None for windows that are
/// not of a time.
pub(super) fn spans(window: Window, time: i64, found: &mut Vec<(i64, i64)>) {
    found.clear();
    let before = |time: i64, offset: i64, step: i64| time - (time - offset).rem_euclid(step);
    match window {
        Window::Tumbling { size, offset } => {
            let start = before(time, offset % size, size);
            found.push((start, start + size));
        }
        Window::Sliding { size, slide, offset } => {
            let mut start = before(time, offset % slide, slide);
            while start > time - size {
                found.push((start, start + size));
                start -= slide;
            }
            found.reverse();
        }
        Window::Cumulate { size, step, offset } => {
            let start = before(time, offset % size, size);
            let mut end = before(time, start, step) + step;
            while end <= start + size {
                found.push((start, end));
                end += step;
            }
        }
        Window::Session { gap } => found.push((time, time + gap)),
        Window::Global | Window::Count { .. } => found.push((i64::MIN, i64::MAX)),
        Window::Attached => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(window: Window, time: i64) -> Vec<(i64, i64)> {
        let mut found = vec![];
        spans(window, time, &mut found);
        found
    }

    #[test]
    fn windows_begin_at_their_multiples() {
        let tumbling = |offset| Window::Tumbling { size: 5000, offset };
        // As in Flink's TumblingEventTimeWindowsTest and SlidingEventTimeWindowsTest.
        assert_eq!(of(tumbling(0), 0), [(0, 5000)]);
        assert_eq!(of(tumbling(0), 4999), [(0, 5000)]);
        assert_eq!(of(tumbling(0), 5000), [(5000, 10_000)]);
        assert_eq!(of(tumbling(100), 0), [(-4900, 100)]);
        assert_eq!(of(tumbling(100), 5100), [(5100, 10_100)]);
        assert_eq!(of(tumbling(-100), 4999), [(4900, 9900)]);
        let sliding = Window::Sliding { size: 5000, slide: 1000, offset: 0 };
        assert_eq!(of(sliding, 0), [(-4000, 1000), (-3000, 2000), (-2000, 3000), (-1000, 4000), (0, 5000)]);
        assert_eq!(of(sliding, 4999), [(0, 5000), (1000, 6000), (2000, 7000), (3000, 8000), (4000, 9000)]);
        let cumulate = Window::Cumulate { size: 9, step: 3, offset: 0 };
        assert_eq!(of(cumulate, 0), [(0, 3), (0, 6), (0, 9)]);
        assert_eq!(of(cumulate, 4), [(0, 6), (0, 9)]);
        assert_eq!(of(cumulate, 8), [(0, 9)]);
        assert_eq!(of(cumulate, -1), [(-9, 0)]);
    }

    proptest! {
        /// Against looking at every window there may be.
        #[test]
        fn every_window_that_holds_the_time_is_found(
            time in -200i64..200, slide in 1i64..20, size in 1i64..40, offset in -50i64..50,
        ) {
            let expected: Vec<_> = (-400..400)
                .map(|at| (offset + at * slide, offset + at * slide + size))
                .filter(|(start, end)| (*start..*end).contains(&time))
                .collect();
            prop_assert_eq!(of(Window::Sliding { size, slide, offset }, time), expected);
            let steps = size;
            let expected: Vec<_> = (-400..400)
                .map(|at| offset + at * slide * steps)
                .flat_map(|start| (1..=steps).map(move |step| (start, start + step * slide)))
                .filter(|(start, end)| (*start..*end).contains(&time))
                .collect();
            prop_assert_eq!(of(Window::Cumulate { size: slide * steps, step: slide, offset }, time), expected);
        }
    }
}
