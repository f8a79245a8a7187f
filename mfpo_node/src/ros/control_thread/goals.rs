//! Goals on the control thread: taken over between two ticks, refused in words.

use super::ControlThread;

use super::super::r2r;
use super::super::running::TELL_EVERY;
use r2r::geometry_msgs::msg::PointStamped;

use crate::goal::GoalRefusal;
use crate::status::LoopEvent;
use crate::time::MonoTime;

impl ControlThread {
    pub(super) fn take_goals(&mut self) {
        while let Some(goal) = self.goals.pop() {
            if let Err(refusal) = self.take_goal(&goal) {
                self.tell_refused_goal(refusal);
            }
        }
    }

    fn take_goal(&mut self, goal: &PointStamped) -> Result<(), GoalRefusal> {
        let Some(running) = &mut self.running else {
            return Err(GoalRefusal::NoPolicy);
        };
        let position = [goal.point.x, goal.point.y, goal.point.z];
        let now = MonoTime::now();
        let control = &mut running.robot.control;
        let is_first = control.give_goal(&goal.header.frame_id, position, now)?;
        running.robot.live.set_goal(Some((position, now)));
        if is_first {
            self.rings.tell(LoopEvent::GoalGiven(position));
        }
        Ok(())
    }

    fn tell_refused_goal(&mut self, refusal: GoalRefusal) {
        let now = MonoTime::now();
        if self.goal_refused.is_none_or(|at| now.since(at) > TELL_EVERY) {
            self.goal_refused = Some(now);
            self.rings.tell(LoopEvent::GoalRefused(refusal));
        }
    }
}
