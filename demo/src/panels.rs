//! What the screen shows, for any size from 80 x 24: the robot as it moves, the training, the control node, and the
//! robot's own success before and after.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::canvas::{Canvas, Circle, Line as Stroke};
use ratatui::widgets::{Block, BorderType, Gauge, Paragraph, Sparkline};

use crate::story::{NodeState, NodeStatus, PartState, Phase, Story};
use crate::trial::Trial;

const ACCENT: Color = Color::Cyan;
const GOOD: Color = Color::Green;
const BAD: Color = Color::Red;
const QUIET: Color = Color::DarkGray;
const ARM: Color = Color::Yellow;

/// Smaller screens show lines of text.
const SMALLEST: (u16, u16) = (72, 22);
/// Length of the robot's arm, and what the picture shows around its shoulder, m.
const LINK: f64 = 0.2;
const REACH: f64 = 0.25;

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, story: &Story) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        return frame.render_widget(
            Paragraph::new(crate::lines::progress(story)).wrap(Default::default()),
            area,
        );
    }
    let [title, phases, middle, success, news, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(13),
        Constraint::Length(5),
        Constraint::Length(3),
        Constraint::Length(1),
    ])
    .areas(area);
    let [robot, right] = Layout::horizontal([
        Constraint::Length((2 * middle.height + 2).clamp(30, area.width / 2 - 4)),
        Constraint::Min(40),
    ])
    .areas(middle);
    let [training, control] = Layout::vertical([Constraint::Min(7), Constraint::Length(6)]).areas(right);
    draw_title(frame, title, story);
    draw_phases(frame, phases, story);
    draw_robot(frame, robot, story);
    draw_training(frame, training, story);
    draw_control(frame, control, story);
    draw_success(frame, success, story);
    draw_news(frame, news, story);
    frame.render_widget(
        Line::from(vec![
            Span::from(" q").bold(),
            Span::from(" stop everything   ").fg(QUIET),
            Span::from(phase_in_words(story)).fg(QUIET),
        ]),
        keys,
    );
}

fn panel(title: &str) -> Block<'_> {
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(Style::new().fg(QUIET))
        .title(Span::from(format!(" {title} ")).bold())
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, story: &Story) {
    let [left, right] = Layout::horizontal([Constraint::Min(10), Constraint::Length(24)]).areas(area);
    frame.render_widget(
        Line::from(vec![
            Span::from(" MFPO ").fg(Color::Black).bg(ACCENT).bold(),
            Span::from("  a robot learns on ROS 2 while it moves").bold(),
        ]),
        left,
    );
    let time = format!("{} of {} ", clock(story.elapsed()), clock(story.budget));
    frame.render_widget(Line::from(time).right_aligned().fg(ACCENT), right);
}

fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

/// What is over, what is going on, what is to come; on the right the processes.
fn draw_phases(frame: &mut Frame<'_>, area: Rect, story: &Story) {
    let [left, right] = Layout::horizontal([Constraint::Min(10), Constraint::Length(30)]).areas(area);
    let mut spans = vec![Span::from(" ")];
    for phase in Phase::ALL {
        let (mark, style) = if phase < story.phase {
            ("✔", Style::new().fg(GOOD))
        } else if phase == story.phase {
            ("▶", Style::new().fg(ACCENT).add_modifier(Modifier::BOLD))
        } else {
            ("·", Style::new().fg(QUIET))
        };
        spans.push(Span::styled(format!("{mark} {}  ", phase.name()), style));
    }
    frame.render_widget(Line::from(spans), left);
    let mut spans = Vec::new();
    for part in story.parts {
        let (mark, color) = match part.state {
            PartState::Waiting => ("○", QUIET),
            PartState::Running => ("●", GOOD),
            PartState::Finished => ("✔", GOOD),
            PartState::Died => ("✖", BAD),
        };
        spans.push(Span::from(format!(" {mark}")).fg(color));
        spans.push(Span::from(format!(" {} ", part.name)).fg(QUIET));
    }
    frame.render_widget(Line::from(spans).right_aligned(), right);
}

fn phase_in_words(story: &Story) -> String {
    let left = |trial: Option<&Trial>| {
        let trials = trial.map_or(0, |trial| trial.starts() - trial.counted());
        clock(story.episode_time() * u32::try_from(trials).unwrap_or(0))
    };
    match story.phase {
        Phase::Starting => "starting robot, control node and trainer".to_owned(),
        Phase::Before => format!(
            "measuring the untrained policy, {} left",
            left(story.before.as_ref())
        ),
        Phase::Learning => "each better policy goes live while the robot moves".to_owned(),
        Phase::After => format!("measuring the last policy, {} left", left(story.after.as_ref())),
        Phase::Done => "done".to_owned(),
    }
}

/// The arm from the front: 0 rad is upright, positive turns to the right.
fn draw_robot(frame: &mut Frame<'_>, area: Rect, story: &Story) {
    let block = panel("Robot: MuJoCo in real time");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [picture, caption] = Layout::vertical([Constraint::Min(3), Constraint::Length(1)]).areas(inner);
    // A cell has 2 x 4 dots, which are about square.
    let (columns, rows) = (2.0 * f64::from(picture.width), 4.0 * f64::from(picture.height));
    let scale = 2.0 * REACH / columns.min(rows);
    let (x, y) = (scale * columns / 2.0, scale * rows / 2.0);
    let angle = story.angles.back().map(|(_, angle)| *angle);
    let canvas = Canvas::default()
        .marker(Marker::Braille)
        .x_bounds([-x, x])
        .y_bounds([-y, y])
        .paint(|context| {
            context.draw(&Stroke::new(0.0, 0.0, 0.0, -y, QUIET));
            let target = if angle.is_some_and(|angle| angle.cos() > 0.97) {
                GOOD
            } else {
                QUIET
            };
            for (from, to) in [((-0.06, LINK), (-0.035, LINK)), ((0.035, LINK), (0.06, LINK))] {
                context.draw(&Stroke::new(from.0, from.1, to.0, to.1, target));
            }
            context.layer();
            let Some(angle) = angle else { return };
            let tip = (LINK * angle.sin(), LINK * angle.cos());
            for aside in [-0.5 * scale, 0.5 * scale] {
                let (dx, dy) = (aside * angle.cos(), -aside * angle.sin());
                context.draw(&Stroke::new(dx, dy, tip.0 + dx, tip.1 + dy, ARM));
            }
            for radius in [0.010, 0.018, 0.026] {
                context.draw(&Circle::new(tip.0, tip.1, radius, ARM));
            }
        });
    frame.render_widget(canvas, picture);
    frame.render_widget(Line::from(robot_caption(story)).centered().fg(QUIET), caption);
}

fn robot_caption(story: &Story) -> String {
    if story.phase == Phase::Starting {
        return "waits for its first command".to_owned();
    }
    let under_way = story.episodes.last().map_or(0, |episode| episode.index + 1);
    format!(
        "episode {under_way}, start {} of {}",
        under_way % story.starts + 1,
        story.starts
    )
}

fn draw_training(frame: &mut Frame<'_>, area: Rect, story: &Story) {
    let curve_name = Line::from(" return of each training episode ").fg(QUIET);
    let block = panel("Trainer: MFPO in its own simulator").title_bottom(curve_name.right_aligned());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [bar, numbers, curve] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Min(1)]).areas(inner);
    let report = &story.training.report;
    let gauge = Gauge::default()
        .ratio(story.training.share())
        .label(format!(
            "step {} of {}",
            thousands(report.step),
            thousands(report.steps)
        ))
        .gauge_style(Style::new().fg(ACCENT).bg(Color::Black))
        .use_unicode(true);
    frame.render_widget(gauge, bar);
    let mut line = vec![Span::from("return ").fg(QUIET)];
    line.push(
        report
            .mean_return
            .map_or("-".to_owned(), |r| format!("{r:.1}"))
            .bold(),
    );
    line.push(Span::from("   success ").fg(QUIET));
    line.push(
        report
            .success
            .map_or("-".to_owned(), |s| format!("{:.0} %", 100.0 * s))
            .bold(),
    );
    line.push(Span::from("   updates/s ").fg(QUIET));
    line.push(format!("{:.0}", report.updates_per_s).bold());
    frame.render_widget(Line::from(line), numbers);
    let data = bars(&story.training.returns, usize::from(curve.width));
    frame.render_widget(
        Sparkline::default()
            .data(data)
            .max(100)
            .style(Style::new().fg(ACCENT)),
        curve,
    );
}

/// The curve in at most `width` bars of 1 to 100: neighbouring points are averaged where there are more.
fn bars(values: &[f64], width: usize) -> Vec<u64> {
    let group = values.len().div_ceil(width.max(1)).max(1);
    let means: Vec<f64> = values
        .chunks(group)
        .map(|chunk| chunk.iter().sum::<f64>() / chunk.len() as f64)
        .collect();
    let low = means.iter().copied().fold(f64::INFINITY, f64::min).min(0.0);
    let high = means.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let span = (high - low).max(1e-9);
    means
        .iter()
        .map(|mean| (1.0 + 99.0 * (mean - low) / span).round() as u64)
        .collect()
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (k, digit) in digits.chars().enumerate() {
        if k > 0 && (digits.len() - k).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn draw_control(frame: &mut Frame<'_>, area: Rect, story: &Story) {
    let block = panel("Control node");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let lines = match &story.node {
        Some(node) => control_lines(node),
        None => vec![Line::from("waits for the untrained policy").fg(QUIET)],
    };
    frame.render_widget(Paragraph::new(lines), inner);
}

fn control_lines(node: &NodeStatus) -> Vec<Line<'static>> {
    let label = |text: &'static str| Span::from(text).fg(QUIET);
    let count = |number: u64, alarm: bool| {
        let span = Span::from(thousands(number)).bold();
        if alarm && number > 0 { span.fg(BAD) } else { span }
    };
    let microseconds = |seconds: f64| Span::from(format!("{:.0} us", 1e6 * seconds)).bold();
    vec![
        Line::from(vec![
            label("policy   version "),
            Span::from(node.version.to_string()).bold().fg(ACCENT),
            label("   swaps "),
            count(node.swaps, false),
            label("   refused "),
            count(node.rejections, true),
        ]),
        Line::from(vec![
            label("ticks    "),
            count(node.ticks, false),
            label(" at "),
            Span::from(format!("{:.1} Hz", node.tick_rate)).bold(),
            label("   missed "),
            count(node.missed_ticks, true),
        ]),
        Line::from(vec![
            label("latency  p50 "),
            microseconds(node.latency_p50),
            label("   p99 "),
            microseconds(node.latency_p99),
        ]),
        match node.state {
            NodeState::Active => Line::from(newest_clause(&node.message)).fg(QUIET),
            _ => Line::from(node.message.clone()).fg(BAD),
        },
    ]
}

/// What comes after the last semicolon: `the policy commands the robot; a newer bundle waits`.
fn newest_clause(message: &str) -> String {
    message.rsplit("; ").next().unwrap_or(message).to_owned()
}

fn draw_success(frame: &mut Frame<'_>, area: Rect, story: &Story) {
    let block = panel("Success on the robot, each at the same unseen starts");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let newest: Vec<Option<bool>> = story
        .newest()
        .iter()
        .map(|episode| Some(episode.success))
        .collect();
    let blank = vec![None; usize::try_from(story.starts).unwrap_or(0)];
    let of = |trial: &Option<Trial>| {
        trial
            .as_ref()
            .map_or(blank.clone(), |trial| trial.outcomes().to_vec())
    };
    let version = |trial: &Option<Trial>| {
        trial
            .as_ref()
            .map_or(String::new(), |trial| format!("version {}", trial.version))
    };
    let lines = vec![
        success_line("untrained", &of(&story.before), version(&story.before)),
        success_line("newest 20", &newest, String::new()),
        success_line("trained", &of(&story.after), version(&story.after)),
    ];
    frame.render_widget(Paragraph::new(lines), inner);
}

/// One dot an episode, and the share of successes among those that are over.
fn success_line(name: &'static str, outcomes: &[Option<bool>], note: String) -> Line<'static> {
    let mut spans = vec![Span::from(format!("{name:<10} ")).fg(QUIET)];
    for outcome in outcomes {
        spans.push(match outcome {
            Some(true) => Span::from("●").fg(GOOD),
            Some(false) => Span::from("●").fg(BAD),
            None => Span::from("·").fg(QUIET),
        });
    }
    let padding = crate::story::NEWEST.saturating_sub(outcomes.len());
    let over: Vec<bool> = outcomes.iter().flatten().copied().collect();
    let successes = over.iter().filter(|success| **success).count();
    if !over.is_empty() {
        let share = 100 * successes / over.len();
        spans.push(Span::from(" ".repeat(padding)));
        spans.push(Span::from(format!("  {share:>3} %")).bold());
        spans.push(Span::from(format!("  {successes} of {}   {note}", over.len())).fg(QUIET));
    }
    Line::from(spans)
}

fn draw_news(frame: &mut Frame<'_>, area: Rect, story: &Story) {
    let rows = usize::from(area.height);
    let skip = story.news.len().saturating_sub(rows);
    let lines: Vec<Line<'_>> = story
        .news
        .iter()
        .skip(skip)
        .map(|(at, text)| {
            Line::from(vec![
                Span::from(format!(" {:>5}  ", clock(*at))).fg(QUIET),
                Span::from(text.as_str()),
            ])
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), area);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::trainer::Report;
    use crate::trial::Episode;

    fn story() -> Story {
        let mut story = Story::new(Duration::from_secs(180), 0, 20);
        story.training.take(Report {
            step: 3_250,
            steps: 5_000,
            mean_return: Some(61.3),
            success: Some(0.9),
            updates_per_s: 82.0,
            ..Report::default()
        });
        story.training.returns = (0..200).map(f64::from).collect();
        story.take_status(NodeStatus {
            stamp: 1,
            state: NodeState::Active,
            message: "the policy commands the robot".into(),
            run: "run".into(),
            version: 14,
            digest: "d".into(),
            swaps: 12,
            rejections: 0,
            last_rejection: String::new(),
            ticks: 3_400,
            missed_ticks: 0,
            fallback_ticks: 0,
            tick_rate: 50.0,
            latency_p50: 81e-6,
            latency_p99: 140e-6,
            latency_max: 1e-3,
        });
        let mut before = Trial::new(20, "d", 0, 0);
        for index in 0..20 {
            let episode = Episode {
                index,
                began: 1,
                ended: 2,
                success: index == 3,
                episode_return: 1.0,
                real_time_factor: 1.0,
            };
            before.take(&episode);
            story.episodes.push(episode);
        }
        story.before = Some(before);
        story.phase = Phase::Learning;
        story.take_angle(0, 0.5);
        story.say("policy version 14 went live while the robot moved");
        story
    }

    fn shown(width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &story())).unwrap();
        let buffer = terminal.backend().buffer().clone();
        buffer
            .content
            .chunks(usize::from(width))
            .map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n")
            .collect()
    }

    #[test]
    fn every_figure_that_is_promised_is_on_the_screen_of_any_size() {
        for (width, height) in [(80, 24), (100, 30), (160, 50), (300, 90)] {
            let screen = shown(width, height);
            for figure in [
                "step 3 250 of 5 000",
                "61.3",
                "version 14",
                "swaps 12",
                "missed 0",
                "50.0 Hz",
                "p50 81 us",
                "p99 140 us",
                "1 of 20",
                "learning live",
                "of 3:00",
                "went live while the robot moved",
            ] {
                assert!(
                    screen.contains(figure),
                    "{figure} at {width} x {height}:\n{screen}"
                );
            }
        }
    }

    #[test]
    fn a_tiny_terminal_shows_the_figures_as_text() {
        let screen = shown(60, 12).replace('\n', "");
        assert!(
            screen.contains("3250/5000") && screen.contains("12 swaps"),
            "{screen}"
        );
    }

    #[test]
    fn a_long_curve_is_averaged_into_the_width() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let bars = bars(&values, 10);
        assert_eq!(bars.len(), 10);
        assert!(bars.is_sorted() && bars[9] == 100, "{bars:?}");
    }
}
