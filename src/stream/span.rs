use super::plan::Window;
use super::zone::{Clocks, Grid, Zones};

/// The windows of rows, by the clocks of their time zone where they have one.
#[derive(Debug)]
pub(super) struct Spans {
    window: Window,
    clocks: Option<Clocks>,
    /// From when to when no window meets a change of the clocks, and how far these are ahead of UTC.
    quiet: (i64, i64, i64),
}

impl Spans {
    pub fn new(window: Window, zones: Zones) -> Self {
        Self { window, clocks: window.zone().map(|zone| Clocks::new(zone, zones)), quiet: (0, 0, 0) }
    }

    /// The windows of a row of `time`, as of [`spans`].
    pub fn of(&mut self, time: i64, found: &mut Vec<(i64, i64)>) {
        let Some(clocks) = &mut self.clocks else { return spans(self.window, time, found) };
        if !(self.quiet.0 <= time && time < self.quiet.1) {
            let most = self.window.span_max();
            let changes =
                clocks.changes(time.saturating_sub(3 * most + MARGIN), time.saturating_add(3 * most + MARGIN));
            let next = changes.partition_point(|(since, _)| *since <= time);
            let (since, ahead) = changes[next.saturating_sub(1)];
            // The first of the changes is as far as was looked, and so is the last.
            let until = changes.get(next).map_or(time.saturating_add(3 * most + MARGIN), |(since, _)| *since);
            let quiet = (since.saturating_add(2 * most), until.saturating_sub(2 * most), ahead);
            if !(quiet.0 <= time && time < quiet.1) {
                return zoned(self.window, changes, time, found);
            }
            self.quiet = quiet;
        }
        spans(self.window.moved(-self.quiet.2), time, found);
    }
}

/// Longer than clocks were ever changed by.
const MARGIN: i64 = 3 * 86_400_000_000;

/// The windows of a row of `time` where clocks are changed.
fn zoned(window: Window, changes: &[(i64, i64)], time: i64, found: &mut Vec<(i64, i64)>) {
    found.clear();
    match window {
        Window::Tumbling { size, offset, .. } => {
            let grid = Grid { changes, size, offset };
            found.push((grid.begin(time), grid.end(time)));
        }
        Window::Sliding { size, slide, offset, .. } => {
            let (begins, ends) = (Grid { changes, size: slide, offset }, Grid { changes, size, offset });
            let since = time - size - ends.longer(time);
            let mut begin = begins.begin(time);
            while begin > since {
                let end = ends.when(begin, begins.label(begin) + size);
                if end > time {
                    found.push((begin, end));
                }
                begin = begins.begin(begin - 1);
            }
            found.sort_unstable_by_key(|(begin, end)| (*end, *begin));
        }
        Window::Cumulate { size, step, offset, .. } => {
            let (whole, steps) = (Grid { changes, size, offset }, Grid { changes, size: step, offset });
            let (begin, last) = (whole.begin(time), whole.end(time));
            let mut end = steps.end(time);
            while end < last {
                found.push((begin, end));
                end = steps.end(end);
            }
            found.push((begin, last));
        }
        Window::Session { .. } | Window::Global | Window::Count { .. } | Window::Attached => {
            unreachable!("{window} has no zone")
        }
    }
}

/// The windows of a row of `time`, by ascending end, as start and end: in `found`, in place of what was there. None for windows that are
/// not of a time.
pub(super) fn spans(window: Window, time: i64, found: &mut Vec<(i64, i64)>) {
    found.clear();
    let before = |time: i64, offset: i64, step: i64| time - (time - offset).rem_euclid(step);
    match window {
        Window::Tumbling { size, offset, .. } => {
            let start = before(time, offset % size, size);
            found.push((start, start + size));
        }
        Window::Sliding { size, slide, offset, .. } => {
            let mut start = before(time, offset % slide, slide);
            while start > time - size {
                found.push((start, start + size));
                start -= slide;
            }
            found.reverse();
        }
        Window::Cumulate { size, step, offset, .. } => {
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
    use crate::stream::zone::ZoneName;

    fn of(window: Window, time: i64) -> Vec<(i64, i64)> {
        let mut found = vec![];
        spans(window, time, &mut found);
        found
    }

    #[test]
    fn windows_begin_at_their_multiples() {
        let tumbling = |offset| Window::Tumbling { size: 5000, offset, zone: None };
        // As in Flink's TumblingEventTimeWindowsTest and SlidingEventTimeWindowsTest.
        assert_eq!(of(tumbling(0), 0), [(0, 5000)]);
        assert_eq!(of(tumbling(0), 4999), [(0, 5000)]);
        assert_eq!(of(tumbling(0), 5000), [(5000, 10_000)]);
        assert_eq!(of(tumbling(100), 0), [(-4900, 100)]);
        assert_eq!(of(tumbling(100), 5100), [(5100, 10_100)]);
        assert_eq!(of(tumbling(-100), 4999), [(4900, 9900)]);
        let sliding = Window::Sliding { size: 5000, slide: 1000, offset: 0, zone: None };
        assert_eq!(of(sliding, 0), [(-4000, 1000), (-3000, 2000), (-2000, 3000), (-1000, 4000), (0, 5000)]);
        assert_eq!(of(sliding, 4999), [(0, 5000), (1000, 6000), (2000, 7000), (3000, 8000), (4000, 9000)]);
        let cumulate = Window::Cumulate { size: 9, step: 3, offset: 0, zone: None };
        assert_eq!(of(cumulate, 0), [(0, 3), (0, 6), (0, 9)]);
        assert_eq!(of(cumulate, 4), [(0, 6), (0, 9)]);
        assert_eq!(of(cumulate, 8), [(0, 9)]);
        assert_eq!(of(cumulate, -1), [(-9, 0)]);
    }

    /// When the clocks of some zones were changed: seconds since 1970, and how far they were ahead from then on. From the IANA database.
    const CHANGES: [(&str, &[(i64, i32)]); 6] = [
        ("Europe/Berlin", &[(i64::MIN, 3600), (1_711_846_800, 7200), (1_729_990_800, 3600)]),
        ("Asia/Kolkata", &[(i64::MIN, 19_800)]),
        // Half an hour, in the south.
        ("Australia/Lord_Howe", &[(i64::MIN, 39_600), (1_712_415_600, 37_800), (1_728_142_200, 39_600)]),
        // At midnight: a day began at one, and one had its last hour twice.
        ("America/Sao_Paulo", &[(i64::MIN, -10_800), (1_541_300_400, -7200), (1_550_368_800, -10_800)]),
        // A minute past midnight: the day before came back for 59 minutes.
        ("America/St_Johns", &[(i64::MIN, -12_600), (1_268_537_460, -9000), (1_289_097_060, -12_600)]),
        // Across the date line: no 30th of December 2011.
        ("Pacific/Apia", &[(i64::MIN, -36_000), (1_325_239_200, 50_400), (1_333_202_400, 46_800)]),
    ];

    fn offset_s(zone: &str, at_s: i64) -> Option<i32> {
        let (_, changes) = CHANGES.iter().find(|(name, _)| *name == zone)?;
        Some(changes[changes.partition_point(|(since, _)| *since <= at_s) - 1].1)
    }

    const HOUR: i64 = 3_600_000_000;
    const DAY: i64 = 24 * HOUR;

    /// The windows of the moment `text`, as RFC 3339 has them.
    fn shown(window: Window, zone: &str, text: &str) -> Vec<String> {
        let (mut spans, mut found) =
            (Spans::new(window.in_zone(ZoneName::new(zone).ok()), Zones::new(offset_s)), vec![]);
        spans.of(crate::model::time::parse(text).unwrap(), &mut found);
        let show = |(start, end): (i64, i64)| {
            let time = |at: i64| {
                let ((year, month, day), minute) = (crate::model::time::date(at), at.rem_euclid(DAY) / 60_000_000);
                format!("{year}-{month:02}-{day:02}T{:02}:{:02}", minute / 60, minute % 60)
            };
            format!("{} {}", time(start), time(end))
        };
        found.into_iter().map(show).collect()
    }

    #[test]
    fn a_day_is_what_the_clocks_show() {
        let day = Window::Tumbling { size: DAY, offset: 0, zone: None };
        let cases = [
            ("Europe/Berlin", "2024-03-30T12:00:00Z", "2024-03-29T23:00 2024-03-30T23:00"),
            ("Europe/Berlin", "2024-03-31T12:00:00Z", "2024-03-30T23:00 2024-03-31T22:00"),
            ("Europe/Berlin", "2024-10-26T22:00:00Z", "2024-10-26T22:00 2024-10-27T23:00"),
            ("Europe/Berlin", "2024-10-27T22:59:59Z", "2024-10-26T22:00 2024-10-27T23:00"),
            ("Asia/Kolkata", "2024-10-27T18:29:59Z", "2024-10-26T18:30 2024-10-27T18:30"),
            ("Australia/Lord_Howe", "2024-04-06T15:00:00Z", "2024-04-06T13:00 2024-04-07T13:30"),
            ("Australia/Lord_Howe", "2024-10-05T15:00:00Z", "2024-10-05T13:30 2024-10-06T13:00"),
            ("America/Sao_Paulo", "2018-11-04T03:00:00Z", "2018-11-04T03:00 2018-11-05T02:00"),
            ("America/Sao_Paulo", "2018-11-04T02:59:59Z", "2018-11-03T03:00 2018-11-04T03:00"),
            ("America/Sao_Paulo", "2019-02-17T02:30:00Z", "2019-02-16T02:00 2019-02-17T03:00"),
            ("America/St_Johns", "2010-11-07T02:30:30Z", "2010-11-07T02:30 2010-11-08T03:30"),
            ("America/St_Johns", "2010-11-07T02:31:00Z", "2010-11-07T02:30 2010-11-08T03:30"),
            ("America/St_Johns", "2010-11-07T02:29:59Z", "2010-11-06T02:30 2010-11-07T02:30"),
            ("Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T10:00 2011-12-30T10:00"),
            ("Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00 2011-12-31T10:00"),
        ];
        for (zone, at, expected) in cases {
            assert_eq!(shown(day, zone, at), [expected], "{zone} {at}");
        }
    }

    #[test]
    fn hours_stay_on_full_hours_of_the_clocks() {
        let hours = |hours| Window::Tumbling { size: hours * HOUR, offset: 0, zone: None };
        let cases = [
            // An hour that comes twice is two windows, and one that is left out is none.
            (1, "Europe/Berlin", "2024-10-27T00:30:00Z", "2024-10-27T00:00 2024-10-27T01:00"),
            (1, "Europe/Berlin", "2024-10-27T01:30:00Z", "2024-10-27T01:00 2024-10-27T02:00"),
            (1, "Europe/Berlin", "2024-03-31T00:59:59Z", "2024-03-31T00:00 2024-03-31T01:00"),
            (1, "Asia/Kolkata", "2024-10-27T00:29:59Z", "2024-10-26T23:30 2024-10-27T00:30"),
            // From 02:00 to 02:30, and from 02:00 back to 01:30.
            (1, "Australia/Lord_Howe", "2024-10-05T15:30:00Z", "2024-10-05T15:30 2024-10-05T16:00"),
            (1, "Australia/Lord_Howe", "2024-04-06T15:10:00Z", "2024-04-06T14:00 2024-04-06T15:30"),
            (4, "Europe/Berlin", "2024-10-27T00:30:00Z", "2024-10-26T22:00 2024-10-27T03:00"),
            (4, "Europe/Berlin", "2024-03-31T00:30:00Z", "2024-03-30T23:00 2024-03-31T02:00"),
        ];
        for (size, zone, at, expected) in cases {
            assert_eq!(shown(hours(size), zone, at), [expected], "{size} {zone} {at}");
        }
        let slides = Window::Sliding { size: DAY, slide: 12 * HOUR, offset: 0, zone: None };
        assert_eq!(
            shown(slides, "Europe/Berlin", "2024-03-31T12:00:00Z"),
            ["2024-03-30T23:00 2024-03-31T22:00", "2024-03-31T10:00 2024-04-01T10:00"]
        );
        let grows = Window::Cumulate { size: DAY, step: 6 * HOUR, offset: 0, zone: None };
        assert_eq!(
            shown(grows, "Europe/Berlin", "2024-10-27T12:00:00Z"),
            ["2024-10-26T22:00 2024-10-27T17:00", "2024-10-26T22:00 2024-10-27T23:00"]
        );
        let monday = Window::Tumbling { size: 7 * DAY, offset: 4 * DAY, zone: None };
        assert_eq!(shown(monday, "Europe/Berlin", "2024-10-27T12:00:00Z"), ["2024-10-20T22:00 2024-10-27T23:00"]);
    }

    #[test]
    fn changes_are_found_to_the_second() {
        for (name, table) in CHANGES {
            let mut clocks = Clocks::new(ZoneName::new(name).unwrap(), Zones::new(offset_s));
            let (from, to) = (1_200_000_000_000_000, 1_800_000_000_000_000);
            let changes = &clocks.changes(from, to)[1..];
            let expected = table[1..].iter().map(|(since, ahead)| (since * 1_000_000, i64::from(*ahead) * 1_000_000));
            assert_eq!(changes, expected.collect::<Vec<_>>(), "{name}");
        }
    }

    /// Changes of the clocks, and a time near to them: far enough from each other that clocks have gone on between them by more than they
    /// were changed by.
    fn clocks() -> impl Strategy<Value = (Vec<(i64, i64)>, i64)> {
        let change = (60i64..150, -25i64..25);
        (prop::collection::vec(change, 0..5), -300i64..800).prop_map(|(changes, time)| {
            let mut all = vec![(-1_000, 3)];
            let mut since = -100;
            for (later, ahead) in changes {
                since += later;
                all.push((since, ahead));
            }
            (all, time)
        })
    }

    /// How far clocks are ahead at each moment from -1000 on, when only what changes are beyond multiples of `size` counts.
    fn ahead(changes: &[(i64, i64)], size: i64) -> Vec<i64> {
        let mut ahead = changes[0].1;
        (-1_000..2_000)
            .map(|time| {
                if let Some(at) = (1..changes.len()).find(|at| changes[*at].0 == time) {
                    ahead += (changes[at].1 - changes[at - 1].1) % size;
                }
                ahead
            })
            .collect()
    }

    /// All windows of `size`, moment by moment: one ends when clocks show a later one than ever before.
    fn tumbling(changes: &[(i64, i64)], size: i64, offset: i64) -> Vec<(i64, i64)> {
        let mut begins: Vec<i64> = vec![];
        let mut most = i64::MIN;
        for (time, ahead) in (-1_000..).zip(ahead(changes, size)) {
            let number = (time + ahead - offset).div_euclid(size);
            if number > most {
                most = number;
                begins.push(time);
            }
        }
        begins.windows(2).map(|pair| (pair[0], pair[1])).collect()
    }

    proptest! {
        /// Against every moment, one after the other.
        #[test]
        fn windows_by_clocks_that_are_changed((changes, time) in clocks(), size in 1i64..60, slide in 1i64..60, offset in -20i64..20) {
            let holds = |span: &&(i64, i64)| (span.0..span.1).contains(&time);
            let of = |window| {
                let mut found = vec![];
                zoned(window, &changes, time, &mut found);
                found
            };
            let whole: Vec<(i64, i64)> = tumbling(&changes, size, offset).iter().filter(holds).copied().collect();
            prop_assert_eq!(&of(Window::Tumbling { size, offset, zone: None }), &whole);
            prop_assert_eq!(whole.len(), 1);
            prop_assert!(whole[0].1 - whole[0].0 < 2 * size);

            // Each begins where one of `slide` does, and ends when clocks have gone on by `size` from what it is called by.
            let at = |time: i64| changes[changes.iter().rposition(|(since, _)| *since <= time).unwrap()].1;
            let ahead = ahead(&changes, size);
            let mut expected: Vec<(i64, i64)> = tumbling(&changes, slide, offset)
                .into_iter()
                .filter_map(|(begin, _)| {
                    let shown = begin + at(begin);
                    let called = shown - (shown - offset).rem_euclid(slide);
                    let ahead = |time: i64| at(begin) + ahead[(time + 1_000) as usize] - ahead[(begin + 1_000) as usize];
                    let end = (begin + 1..1_900).find(|time| time + ahead(*time) >= called + size)?;
                    Some((begin, end))
                })
                .filter(|span| holds(&span))
                .collect();
            expected.sort_by_key(|(begin, end)| (*end, *begin));
            prop_assert_eq!(of(Window::Sliding { size, slide, offset, zone: None }), expected);

            let size = size * slide.min(8);
            let (begin, last) = *tumbling(&changes, size, offset).iter().find(holds).unwrap();
            let step = size / slide.min(8);
            let ends = tumbling(&changes, step, offset).into_iter().map(|(_, end)| end);
            let mut expected: Vec<_> = ends.filter(|end| (time + 1..last).contains(end)).map(|end| (begin, end)).collect();
            expected.push((begin, last));
            prop_assert_eq!(of(Window::Cumulate { size, step, offset, zone: None }), expected);
        }

        /// What is looked for, kept and taken a shorter way comes to the same as looking at all changes there are.
        #[test]
        fn changes_are_found_where_they_are(
            zone in 0..CHANGES.len(),
            minutes in prop::sample::select(vec![7, 30, 60, 240, 1_440, 10_080, 525_600]),
            slide in prop::sample::select(vec![1, 2, 5]),
            times in prop::collection::vec((0usize..4, -3_000_000i64..3_000_000), 1..40),
        ) {
            let (name, table) = CHANGES[zone];
            let changes: Vec<(i64, i64)> =
                table.iter().map(|(since, ahead)| (since.max(&-9_000_000_000) * 1_000_000, i64::from(*ahead) * 1_000_000)).collect();
            let size = minutes * 60_000_000;
            for window in [
                Window::Tumbling { size, offset: 0, zone: None },
                Window::Sliding { size, slide: size / slide, offset: 5, zone: None },
                Window::Cumulate { size, step: size / slide, offset: -1, zone: None },
            ] {
                let (zoned_window, mut found, mut expected) = (window.in_zone(ZoneName::new(name).ok()), vec![], vec![]);
                let mut spans = Spans::new(zoned_window, Zones::new(offset_s));
                for (near, seconds) in &times {
                    let near = changes[near % changes.len()].0.max(1_000_000_000_000_000);
                    let time = near + seconds * 1_000_000 + 17;
                    spans.of(time, &mut found);
                    zoned(window, &changes, time, &mut expected);
                    prop_assert_eq!(&found, &expected, "{} {}", zoned_window, time);
                }
            }
        }

        /// Against looking at every window there may be.
        #[test]
        fn every_window_that_holds_the_time_is_found(
            time in -200i64..200, slide in 1i64..20, size in 1i64..40, offset in -50i64..50,
        ) {
            let expected: Vec<_> = (-400..400)
                .map(|at| (offset + at * slide, offset + at * slide + size))
                .filter(|(start, end)| (*start..*end).contains(&time))
                .collect();
            prop_assert_eq!(of(Window::Sliding { size, slide, offset, zone: None }, time), expected);
            let steps = size;
            let expected: Vec<_> = (-400..400)
                .map(|at| offset + at * slide * steps)
                .flat_map(|start| (1..=steps).map(move |step| (start, start + step * slide)))
                .filter(|(start, end)| (*start..*end).contains(&time))
                .collect();
            prop_assert_eq!(of(Window::Cumulate { size: slide * steps, step: slide, offset, zone: None }, time), expected);
        }
    }
}
