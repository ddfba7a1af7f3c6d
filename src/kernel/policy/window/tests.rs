use super::*;

fn window(zone_name: &str, days: &[&str], from: &str, to: &str) -> Window {
    let days = match days {
        [] => Days::ALL,
        days => days.iter().fold(Days::NONE, |days, day| days.with(day).unwrap()),
    };
    Window::new(zone(zone_name).unwrap(), days, Minute::parse(from).unwrap(), Minute::parse(to).unwrap())
        .unwrap()
}

fn opens(window: &Window, moments: &[(&str, bool)]) {
    for (moment, due) in moments {
        assert_eq!(window.is_open(moment.parse().unwrap()), *due, "{window} at {moment}");
    }
}

const WEEK: [&str; 5] = ["mon", "tue", "wed", "thu", "fri"];

#[test]
fn opens_at_its_first_moment_and_shuts_at_its_last() {
    let window = window("UTC", &WEEK, "07:00", "19:00");
    opens(
        &window,
        &[
            ("2027-01-13T06:59:59.999Z", false),
            ("2027-01-13T07:00:00Z", true),
            ("2027-01-13T18:59:59.999Z", true),
            ("2027-01-13T19:00:00Z", false),
            ("2027-01-16T12:00:00Z", false), // a Saturday
        ],
    );
}

#[test]
fn speaks_of_the_wall_clock_of_its_place() {
    let london = window("Europe/London", &[], "07:00", "19:00");
    opens(&london, &[("2027-01-13T06:30:00Z", false), ("2027-07-13T06:30:00Z", true)]);
    let tokyo = window("Asia/Tokyo", &["mon"], "00:00", "24:00");
    opens(
        &tokyo,
        &[
            ("2027-01-10T14:59:59Z", false),
            ("2027-01-10T15:00:00Z", true), // Monday has begun there
            ("2027-01-11T14:59:59Z", true),
            ("2027-01-11T15:00:00Z", false),
        ],
    );
    let kathmandu = window("Asia/Kathmandu", &[], "07:00", "07:01"); // +05:45
    opens(&kathmandu, &[("2027-01-13T01:15:30Z", true), ("2027-01-13T01:16:00Z", false)]);
}

#[test]
fn what_runs_past_midnight_belongs_to_the_day_on_which_it_began() {
    let friday_night = window("UTC", &["fri"], "22:00", "06:00");
    opens(
        &friday_night,
        &[
            ("2027-01-15T05:00:00Z", false), // the morning after Thursday's night
            ("2027-01-15T21:59:59Z", false),
            ("2027-01-15T22:00:00Z", true),
            ("2027-01-16T05:59:59Z", true), // Saturday
            ("2027-01-16T06:00:00Z", false),
            ("2027-01-16T22:00:00Z", false),
        ],
    );
    let until_midnight = window("UTC", &["sun"], "18:00", "00:00");
    opens(
        &until_midnight,
        &[("2027-01-17T23:59:59Z", true), ("2027-01-18T00:00:00Z", false), ("2027-01-17T00:00:00Z", false)],
    );
}

#[test]
fn whole_days_are_open_from_midnight_to_midnight() {
    let window = window("Europe/London", &["sat", "sun"], "00:00", "24:00");
    opens(
        &window,
        &[
            ("2027-01-15T23:59:59Z", false),
            ("2027-01-16T00:00:00Z", true),
            ("2027-01-17T23:59:59Z", true),
            ("2027-01-18T00:00:00Z", false),
        ],
    );
}

/// 2027-03-28 in London: 01:00 GMT is 02:00 BST.
#[test]
fn a_time_that_the_clock_skips_never_comes() {
    let within = window("Europe/London", &[], "01:15", "01:45");
    for minute in 0..180 {
        let moment: Timestamp = "2027-03-28T00:00:00Z".parse().unwrap();
        let moment = moment + jiff::SignedDuration::from_mins(minute);
        assert!(!within.is_open(moment), "{moment}");
    }
    opens(&within, &[("2027-03-27T01:30:00Z", true), ("2027-03-29T00:30:00Z", true)]);

    let until_within = window("Europe/London", &[], "00:30", "01:30");
    opens(&until_within, &[("2027-03-28T00:59:59Z", true), ("2027-03-28T01:00:00Z", false)]);

    let night = window("Europe/London", &["sat"], "22:00", "06:00");
    opens(&night, &[("2027-03-28T04:59:59Z", true), ("2027-03-28T05:00:00Z", false)]); // 7 hours
}

/// 2027-10-31 in London: 02:00 BST is 01:00 GMT.
#[test]
fn a_time_that_the_clock_shows_twice_is_inside_twice() {
    let within = window("Europe/London", &[], "01:15", "01:45");
    opens(
        &within,
        &[
            ("2027-10-31T00:14:59Z", false),
            ("2027-10-31T00:30:00Z", true),
            ("2027-10-31T00:45:00Z", false),
            ("2027-10-31T01:30:00Z", true),
            ("2027-10-31T01:45:00Z", false),
        ],
    );
    let night = window("Europe/London", &["sat"], "22:00", "06:00");
    opens(
        &night,
        &[("2027-10-30T21:00:00Z", true), ("2027-10-31T05:59:59Z", true), ("2027-10-31T06:00:00Z", false)],
    );
}

#[test]
fn whole_days_have_no_hole_at_either_change() {
    let always = window("Europe/London", &[], "00:00", "24:00");
    for day in ["2027-03-28T00:00:00Z", "2027-10-31T00:00:00Z"] {
        let begin: Timestamp = day.parse().unwrap();
        for minute in -120..300 {
            assert!(always.is_open(begin + jiff::SignedDuration::from_mins(minute)));
        }
    }
}

#[test]
fn begin_and_end_are_never_the_same() {
    let at = |text| Minute::parse(text).unwrap();
    assert_eq!(Window::new(TimeZone::UTC, Days::ALL, at("07:00"), at("07:00")), None);
}

#[test]
fn times_are_written_in_one_way() {
    for text in ["00:00", "07:05", "23:59", "24:00"] {
        assert_eq!(Minute::parse(text).unwrap().to_string(), text);
    }
    for text in
        ["", "7:00", "07:0", "0700", "24:01", "25:00", "07:60", "07.00", "+7:00", "07:00:00", "é7:0", "-1:00"]
    {
        assert_eq!(Minute::parse(text), None, "{text}");
    }
}

#[test]
fn zones_are_names_of_the_database_in_their_own_spelling() {
    for name in ["UTC", "Etc/UTC", "Europe/London", "America/Argentina/Buenos_Aires"] {
        assert!(zone(name).is_some(), "{name}");
    }
    for name in [
        "",
        "europe/london",
        "London",
        "+01:00",
        "UTC+1",
        "EST5EDT,M3.2.0,M11.1.0",
        "Etc/Unknown",
        "localtime",
    ] {
        assert!(zone(name).is_none(), "{name}");
    }
}

#[test]
fn days_are_named_once() {
    assert!(Days::NONE.with("mon").unwrap().with("mon").is_none());
    for word in ["Mon", "monday", "", "xyz"] {
        assert!(Days::NONE.with(word).is_none(), "{word}");
    }
    assert_eq!(WORDS.iter().fold(Days::NONE, |days, day| days.with(day).unwrap()), Days::ALL);
}

#[test]
fn is_shown_as_people_say_it() {
    assert_eq!(
        window("Europe/London", &WEEK, "07:00", "19:00").to_string(),
        "mon,tue,wed,thu,fri 07:00 to 19:00, Europe/London"
    );
}
