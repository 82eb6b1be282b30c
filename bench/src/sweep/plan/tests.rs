use super::*;
use crate::scratch::Scratch;

fn plan(text: &str) -> Result<Plan> {
    let lists = Lists::parse(text).expect("lists");
    Plan::of(&lists, "ringmain-bench sweep".to_owned(), "20260314-092655".to_owned())
}

#[test]
fn no_combination_is_left_out_without_a_reason() {
    let plan =
        plan("partitions = [1, 4]\nconsumers = [0, 2]\ncodec = [\"zstd\", \"zstd:3\", \"lz4\"]")
            .expect("a plan");
    assert_eq!(plan.cells.len() + plan.refused.len(), 12);
    let reasons: Vec<_> = plan.refused.iter().map(|refused| refused.reason.as_str()).collect();
    let too_many = reasons.iter().filter(|reason| reason.contains("--consumers 2 are more than"));
    assert_eq!(too_many.count(), 3, "{reasons:?}");
    let twins = reasons.iter().filter(|reason| reason.contains("the same as cell"));
    assert_eq!(twins.count(), 3, "{reasons:?}");
    assert_eq!(plan.varied, ["partitions", "consumers", "codec"]);
    let error = self::plan("consumers = [2, 3]").expect_err("none is left");
    assert!(error.is::<crate::usage::Usage>() && error.to_string().contains("--consumers 3"));
    let error =
        self::plan(&format!("seed = {:?}", (0..3000).collect::<Vec<_>>())).expect_err("many");
    assert!(error.to_string().contains("3000 combinations"), "{error}");
}

#[test]
fn each_round_has_every_cell_once_in_an_order_of_its_own() {
    let plan = plan("batch-records = [1, 2, 3, 4, 5, 6, 7, 8]").expect("a plan");
    let orders: Vec<_> = (1..=4).map(|round| plan.order(round)).collect();
    for order in &orders {
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..8).collect::<Vec<_>>());
    }
    assert!(orders.windows(2).all(|pair| pair[0] != pair[1]), "{orders:?}");
    assert_eq!(orders[2], plan.order(3), "a resumed sweep goes on in the same order");
}

#[test]
fn a_plan_comes_back_from_its_directory_and_only_on_its_machine() {
    let scratch = Scratch::new("sweep-plan-load");
    let folder = Folder::create(scratch.path(), "a-sweep").expect("made");
    let mut plan = plan("flush = [\"os\", \"interval:10ms\"]\nrepeats = 2").expect("a plan");
    // Read with an error of one in the last place where the reader is hasty.
    let env = Env { first_touch_us: Some(201.044), ..Env::capture(scratch.path()) };
    plan.env = serde_json::to_value(&env).expect("JSON");
    plan.save(&folder).expect("saved");
    let back = Plan::load(folder.path()).expect("loads");
    assert_eq!(back, plan);
    back.check_place(&env).expect("the same machine");
    let other = Env { kernel: Some("2.4".to_owned()), ..env };
    assert!(back.check_place(&other).expect_err("another kernel").to_string().contains("kernel"));
    assert!(Plan::load(scratch.path()).expect_err("none").is::<crate::usage::Usage>());
}

#[test]
fn the_time_left_follows_what_repeats_took() {
    let plan = plan("batch-records = [1, 10]\nseconds = 4\nwarmup = 1").expect("a plan");
    let mut estimate = Estimate::default();
    let guess = estimate.left(plan.cells.iter(), 0);
    assert_eq!(guess, 2 * (Duration::from_secs(5) + OVERHEAD));
    estimate.learn(Duration::from_secs(1));
    estimate.learn(Duration::from_secs(2));
    assert_eq!(estimate.left(plan.cells.iter(), 0), Duration::from_secs(13));
    let spoken = [59, 240, 12_000].map(|seconds| spoken(Duration::from_secs(seconds)));
    assert_eq!(spoken, ["59 s", "4 min", "3 h 20 min"]);
}
