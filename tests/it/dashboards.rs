//! The Grafana dashboards in `dashboards/`: they are what Grafana takes, they keep to the rules
//! that make a dashboard work elsewhere, and every panel shows something of the demo.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

mod live;
mod variables;

/// A file in `dashboards/`.
struct Dashboard {
    path: PathBuf,
    text: String,
    json: Json,
}

impl Dashboard {
    fn name(&self) -> String {
        let name = self.path.file_name().expect("a file name");
        name.to_string_lossy().into_owned()
    }

    /// Every panel, those in rows included, rows left out.
    fn panels(&self) -> Vec<&Json> {
        let of_rows = self.rows_and_panels();
        let is_panel = |panel: &&Json| panel["type"] != "row";
        of_rows.into_iter().filter(is_panel).collect()
    }

    fn rows_and_panels(&self) -> Vec<&Json> {
        let mut found = Vec::new();
        for panel in items(&self.json["panels"]) {
            found.push(panel);
            found.extend(items(&panel["panels"]));
        }
        found
    }

    fn variables(&self) -> &[Json] {
        items(&self.json["templating"]["list"])
    }

    fn annotations(&self) -> impl Iterator<Item = &Json> {
        let all = items(&self.json["annotations"]["list"]).iter();
        all.filter(|annotation| annotation["builtIn"] != 1)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

fn dashboards() -> Vec<Dashboard> {
    let entries = fs::read_dir(folder()).expect("dashboards/");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a readable file");
        let json = serde_json::from_str(&text);
        let json = json.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Dashboard { path, text, json }
    };
    paths.into_iter().map(read).collect()
}

/// The elements of an array; none where there is no array.
fn items(json: &Json) -> &[Json] {
    json.as_array().map_or(&[], Vec::as_slice)
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or("")
}

/// With the members of every object in the order of their names.
fn sorted(json: &Json) -> Json {
    match json {
        Json::Object(members) => {
            let members: BTreeMap<_, _> = members.iter().collect();
            let each = members.into_iter();
            Json::Object(
                each.map(|(name, value)| (name.clone(), sorted(value)))
                    .collect(),
            )
        }
        Json::Array(items) => Json::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// Collects what is wrong, to tell all of it at once.
#[derive(Default)]
struct Mistakes(Vec<String>);

impl Mistakes {
    fn expect(&mut self, is_right: bool, what: impl FnOnce() -> String) {
        if !is_right {
            self.0.push(what());
        }
    }

    fn tell(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

#[test]
fn the_four_dashboards_are_there_in_one_format() {
    let found = dashboards();
    let names: Vec<_> = found.iter().map(Dashboard::name).collect();
    let expected = [
        "debug.json",
        "executive.json",
        "on-call.json",
        "rollout.json",
    ];
    assert_eq!(names, expected);
    for dashboard in found {
        let pretty = serde_json::to_string_pretty(&sorted(&dashboard.json)).unwrap() + "\n";
        if std::env::var_os("SLOGATE_UPDATE_GOLDEN").is_some() {
            fs::write(&dashboard.path, &pretty).unwrap();
        } else {
            let is_same = dashboard.text == pretty;
            assert!(
                is_same,
                "{}: run with SLOGATE_UPDATE_GOLDEN=1 to format it",
                dashboard.name()
            );
        }
    }
}

/// What each reader comes for; a change must not lose one of these.
#[test]
fn each_reader_finds_the_panels_they_come_for() {
    let wanted: [(&str, &[&str]); 3] = [
        (
            "executive.json",
            &[
                "Deployment success rate (7d)",
                "Deployment frequency (30d)",
                "Mean time to recover from deploys (30d)",
            ],
        ),
        (
            "on-call.json",
            &[
                "Active rollouts with progress",
                "Failed rollout list",
                "Recent deploys with errors",
                "Top error traces by version",
                "Average time-to-rollback",
            ],
        ),
        (
            "debug.json",
            &[
                "Version-tagged request traces",
                "Pod/container startup logs",
                "Image pull errors",
                "Health probe failure counts",
                "CPU per version",
                "Memory per version",
            ],
        ),
    ];
    let found = dashboards();
    for (name, titles) in wanted {
        let dashboard = found.iter().find(|dashboard| dashboard.name() == name);
        let panels = dashboard.expect("a dashboard").panels();
        for title in titles {
            let is_there = panels.iter().any(|panel| panel["title"] == *title);
            assert!(is_there, "{name}: {title}");
        }
    }
}

/// A schema of Grafana's SDK; `None`, with a line that says so, where there is none.
fn schema(file: &str) -> Option<jsonschema::Validator> {
    let Some(dir) = std::env::var_os("SLOGATE_CONFORMANCE_DIR") else {
        println!("skipped: SLOGATE_CONFORMANCE_DIR is not set");
        return None;
    };
    let path = Path::new(&dir).join("grafana-schemas").join(file);
    let Ok(text) = fs::read_to_string(&path) else {
        println!("skipped: {} is not there", path.display());
        return None;
    };
    let mut schema: Json = serde_json::from_str(&text).unwrap();
    // Grafana takes any value here, and its own dashboards have text and numbers; the generator
    // of the schema made objects of "any".
    for (definition, property) in [
        ("MatcherConfig", "options"),
        ("DynamicConfigValue", "value"),
    ] {
        if let Some(any) =
            schema.pointer_mut(&format!("/definitions/{definition}/properties/{property}"))
        {
            *any = Json::Bool(true);
        }
    }
    Some(jsonschema::draft7::new(&schema).unwrap())
}

#[test]
fn grafanas_schemas_take_them() {
    let Some((dashboard, query)) =
        schema("dashboard.jsonschema.json").zip(schema("prometheus.jsonschema.json"))
    else {
        return;
    };
    let mut mistakes = Mistakes::default();
    for found in dashboards() {
        for error in dashboard.iter_errors(&found.json) {
            let place = error.instance_path().to_string();
            mistakes.0.push(format!("{}{place}: {error}", found.name()));
        }
        for target in found
            .panels()
            .iter()
            .flat_map(|panel| items(&panel["targets"]))
        {
            for error in query.iter_errors(target) {
                mistakes
                    .0
                    .push(format!("{}: {error} in {target}", found.name()));
            }
        }
    }
    mistakes.tell();
}

#[test]
fn they_keep_to_the_rules_of_shared_dashboards() {
    let found = dashboards();
    let uids: BTreeSet<&str> = found.iter().map(|d| text(&d.json["uid"])).collect();
    assert_eq!(uids.len(), found.len(), "a uid twice: {uids:?}");
    let mut mistakes = Mistakes::default();
    for dashboard in &found {
        let name = dashboard.name();
        let json = &dashboard.json;
        let is_set = [
            ("schemaVersion", json["schemaVersion"] == 42),
            ("editable: false", json["editable"] == false),
            ("timezone: browser", json["timezone"] == "browser"),
            ("refresh", !text(&json["refresh"]).is_empty()),
            ("description", !text(&json["description"]).is_empty()),
            (
                "tag slogate",
                items(&json["tags"]).contains(&"slogate".into()),
            ),
            ("no id", json.get("id").is_none()),
        ];
        for (what, is_right) in is_set {
            mistakes.expect(is_right, || format!("{name}: {what}"));
        }
        for link in items(&json["links"]) {
            let uid = text(&link["url"]).strip_prefix("/d/").unwrap_or("");
            mistakes.expect(uids.contains(uid), || {
                format!("{name}: no dashboard {uid:?}")
            });
            let keeps = link["includeVars"] == true && link["keepTime"] == true;
            mistakes.expect(keeps, || {
                format!("{name}: link to {uid} forgets the selection")
            });
        }
        for link in data_links(json) {
            let uid = link.split(['/', '?']).nth(2).unwrap_or("");
            mistakes.expect(uids.contains(uid), || {
                format!("{name}: no dashboard {uid:?}")
            });
        }
        mistakes.expect(items(&json["links"]).len() == found.len() - 1, || {
            format!("{name}: links to the other dashboards")
        });
        variables_are_reloaded(dashboard, &mut mistakes);
        panels_are_told(dashboard, &mut mistakes);
        panels_fit(dashboard, &mut mistakes);
    }
    mistakes.tell();
}

/// The URLs of links in tables' cells.
fn data_links(json: &Json) -> Vec<&str> {
    let mut urls = Vec::new();
    match json {
        Json::Object(members) => {
            if members.get("id").is_some_and(|id| id == "links") {
                urls.extend(items(&json["value"]).iter().map(|link| text(&link["url"])));
            }
            urls.extend(members.values().flat_map(data_links));
        }
        Json::Array(items) => urls.extend(items.iter().flat_map(data_links)),
        _ => {}
    }
    urls
}

fn is_data_source(json: &Json) -> bool {
    json["type"] == "prometheus" && json["uid"] == "${datasource}"
}

fn variables_are_reloaded(dashboard: &Dashboard, mistakes: &mut Mistakes) {
    let name = dashboard.name();
    let first = dashboard.variables().first();
    let is_source = first.is_some_and(|first| {
        first["type"] == "datasource"
            && first["name"] == "datasource"
            && first["query"] == "prometheus"
    });
    mistakes.expect(is_source, || {
        format!("{name}: its first variable is not the data source")
    });
    for variable in dashboard.variables().iter().skip(1) {
        let place = format!("{name}: ${}", text(&variable["name"]));
        mistakes.expect(is_data_source(&variable["datasource"]), || {
            format!("{place}: data source")
        });
        mistakes.expect(variable["refresh"] == 2, || {
            format!("{place}: is not reloaded when the time range changes")
        });
        mistakes.expect(variable["query"] == variable["definition"], || {
            format!("{place}: query and definition differ")
        });
        mistakes.expect(
            variable["multi"] != true || variable["allValue"] == ".*",
            || format!("{place}: All has to be .*, which also takes what has no such label"),
        );
        for what in ["label", "description"] {
            mistakes.expect(!text(&variable[what]).is_empty(), || {
                format!("{place}: {what}")
            });
        }
    }
}

fn panels_are_told(dashboard: &Dashboard, mistakes: &mut Mistakes) {
    let mut titles = BTreeSet::new();
    for panel in dashboard.panels() {
        let title = text(&panel["title"]);
        let place = format!("{}: {title:?}", dashboard.name());
        mistakes.expect(titles.insert(title) && !title.is_empty(), || {
            format!("{place}: a title of its own")
        });
        let description = text(&panel["description"]);
        mistakes.expect(description.ends_with('.'), || {
            format!("{place}: description")
        });
        let unit = text(&panel["fieldConfig"]["defaults"]["unit"]);
        mistakes.expect(!unit.is_empty(), || format!("{place}: unit"));
        mistakes.expect(is_data_source(&panel["datasource"]), || {
            format!("{place}: data source")
        });
        let targets = items(&panel["targets"]);
        mistakes.expect(!targets.is_empty(), || format!("{place}: has no query"));
        let mut refs = BTreeSet::new();
        for target in targets {
            let reference = text(&target["refId"]);
            mistakes.expect(refs.insert(reference) && !reference.is_empty(), || {
                format!("{place}: refId {reference:?} twice")
            });
            mistakes.expect(is_data_source(&target["datasource"]), || {
                format!("{place}: data source of {reference}")
            });
            let is_table = target["format"] == "table";
            mistakes.expect(!is_table || target["instant"] == true, || {
                format!("{place}: {reference} fills a table with a range")
            });
        }
    }
}

/// 24 columns, nothing on top of anything else, ids that no other panel has.
fn panels_fit(dashboard: &Dashboard, mistakes: &mut Mistakes) {
    let name = dashboard.name();
    let mut ids = BTreeSet::new();
    let mut cells: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for panel in dashboard.rows_and_panels() {
        let id = panel["id"].as_i64().unwrap_or(0);
        mistakes.expect(id > 0 && ids.insert(id), || {
            format!("{name}: id {id} twice or missing")
        });
        let at = |what: &str| panel["gridPos"][what].as_i64().unwrap_or(-1);
        let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
        let is_inside = x >= 0 && y >= 0 && w > 0 && h > 0 && x + w <= 24;
        mistakes.expect(is_inside, || {
            format!("{name}: panel {id} at {x}+{w}, {y}+{h}")
        });
        for column in x..x + w {
            for line in y..y + h {
                if let Some(other) = cells.insert((column, line), id) {
                    mistakes
                        .0
                        .push(format!("{name}: panel {id} lies on {other}"));
                    return;
                }
            }
        }
    }
}

#[test]
fn every_expression_is_promql_of_known_metrics() {
    let mut mistakes = Mistakes::default();
    let known: BTreeSet<&str> = slogate::status::families::ALL
        .iter()
        .map(|family| family.name)
        .chain(
            slogate::telemetry::catalog::ALL
                .iter()
                .map(|spec| spec.name),
        )
        .chain([
            "slogate_log_records_total",
            "slogate_observability_items_total",
        ])
        .collect();
    let mut count = 0;
    for dashboard in dashboards() {
        let name = dashboard.name();
        let values = variables::any_values(&dashboard);
        for (place, expr) in expressions(&dashboard) {
            count += 1;
            let place = format!("{name}: {place}");
            let filled = match variables::fill(expr, &values) {
                Ok(filled) => filled,
                Err(error) => {
                    mistakes.0.push(format!("{place}: {error}"));
                    continue;
                }
            };
            if let Err(error) = slogate_promql::parse(&filled) {
                mistakes.0.push(format!("{place}: {error}\n{filled}"));
            }
            for fixed in ["rate(", "irate("] {
                for (at, _) in expr.match_indices(fixed) {
                    let argument = &expr[at..];
                    let window = argument.split(['[', ']']).nth(1).unwrap_or("");
                    mistakes.expect(window == "$__rate_interval", || {
                        format!("{place}: a rate over {window}")
                    });
                }
            }
            unknown_metrics(expr, &known, &place, &mut mistakes);
        }
    }
    assert!(count > 80, "only {count} expressions found");
    mistakes.tell();
}

/// The names of all series that slogate makes up.
fn metrics_of_ours() -> BTreeSet<&'static str> {
    let of_status = slogate::status::families::ALL.iter();
    let of_itself = slogate::telemetry::catalog::ALL.iter();
    let of_ingest = [
        "slogate_log_records_total",
        "slogate_observability_items_total",
    ];
    let names = of_status.map(|family| family.name);
    let names = names.chain(of_itself.map(|spec| spec.name));
    names.chain(of_ingest).collect()
}

fn unknown_metrics(expr: &str, known: &BTreeSet<&str>, place: &str, mistakes: &mut Mistakes) {
    for word in expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        let is_ours = word.starts_with("slogate_");
        mistakes.expect(!is_ours || known.contains(word), || {
            format!("{place}: slogate has no {word}")
        });
    }
}

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name);
    fs::read_to_string(path).expect("a readable page")
}

/// Names and expressions of the alert rules that the page shows.
fn alert_rules() -> Vec<(String, String)> {
    let page = page("grafana.md");
    let block = page.split("```yaml\ngroups:").nth(1).expect("alert rules");
    let block = format!("groups:{}", block.split("```").next().unwrap_or(""));
    let rules: Json = serde_saphyr::from_str(&block).expect("YAML");
    let rules = items(&rules["groups"][0]["rules"]).iter();
    let owned = |json: &Json| text(json).to_owned();
    rules
        .map(|rule| (owned(&rule["alert"]), owned(&rule["expr"])))
        .collect()
}

/// The expressions that the pages show.
fn expressions_shown() -> Vec<String> {
    let pages = [page("grafana.md"), page("metrics.md")];
    let blocks = pages
        .iter()
        .flat_map(|page| page.split("```promql\n").skip(1));
    blocks
        .map(|block| block.split("```").next().unwrap_or("").to_owned())
        .collect()
}

#[test]
fn the_alert_rules_shown_are_promql_of_known_metrics() {
    let mut mistakes = Mistakes::default();
    let known = metrics_of_ours();
    let rules = alert_rules();
    assert!(rules.len() >= 5);
    for (name, expr) in rules {
        if let Err(error) = slogate_promql::parse(&expr) {
            mistakes.0.push(format!("{name}: {error}\n{expr}"));
        }
        unknown_metrics(&expr, &known, &name, &mut mistakes);
    }
    mistakes.tell();
}

/// Every expression with its place: of panels, variables and annotations.
fn expressions(dashboard: &Dashboard) -> Vec<(String, &str)> {
    let mut found = Vec::new();
    for panel in dashboard.panels() {
        for target in items(&panel["targets"]) {
            let place = format!("{} {}", text(&panel["title"]), text(&target["refId"]));
            found.push((place, text(&target["expr"])));
        }
    }
    for annotation in dashboard.annotations() {
        let place = format!("annotation {}", text(&annotation["name"]));
        found.push((place, text(&annotation["expr"])));
    }
    found
}

#[test]
fn annotations_are_as_grafana_reads_them() {
    let mut mistakes = Mistakes::default();
    for dashboard in dashboards() {
        let mut count = 0;
        for annotation in dashboard.annotations() {
            count += 1;
            let place = format!("{}: {}", dashboard.name(), text(&annotation["name"]));
            mistakes.expect(is_data_source(&annotation["datasource"]), || {
                format!("{place}: data source")
            });
            // The newer place and the older one, which older versions of Grafana read.
            let is_same = annotation["expr"] == annotation["target"]["expr"];
            mistakes.expect(is_same, || format!("{place}: expr and target differ"));
            let is_timed = annotation["useValueForTime"] == true;
            mistakes.expect(is_timed, || format!("{place}: the value is the time"));
            let is_complete = text(&annotation["expr"]).contains("[$__interval]");
            mistakes.expect(is_complete, || {
                format!("{place}: a wide step would skip events")
            });
        }
        mistakes.expect(count >= 3, || {
            format!("{}: no annotations", dashboard.name())
        });
    }
    mistakes.tell();
}

#[test]
fn the_provisioning_files_fit_the_dashboards() {
    let read = |path: &str| -> Json {
        let text = fs::read_to_string(folder().join("provisioning").join(path)).unwrap();
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let sources = read("datasources/slogate.yaml");
    assert_eq!(sources["apiVersion"], 1);
    let [source] = items(&sources["datasources"]) else {
        panic!("one data source: {sources}");
    };
    assert_eq!(source["type"], "prometheus");
    assert_eq!(source["jsonData"]["httpMethod"], "POST");
    let interval_ms = slogate::status::INTERVAL_MS;
    let interval = format!("{}s", interval_ms / 1000);
    assert_eq!(source["jsonData"]["timeInterval"], interval.as_str());
    for dashboard in dashboards() {
        let current = &dashboard.variables()[0]["current"]["value"];
        assert_eq!(current, &source["uid"], "{}", dashboard.name());
    }
    let traces = &source["jsonData"]["exemplarTraceIdDestinations"][0];
    assert_eq!(traces["name"], "trace_id");
    // Provisioning reads one dollar sign as the name of an environment variable.
    assert!(
        text(&traces["url"]).ends_with("$${__value.raw}"),
        "{traces}"
    );

    let providers = read("dashboards/slogate.yaml");
    let [provider] = items(&providers["providers"]) else {
        panic!("one provider: {providers}");
    };
    assert_eq!(provider["type"], "file");
    let path = text(&provider["options"]["path"]);
    assert!(
        page("grafana.md").contains(path),
        "docs/grafana.md copies the dashboards to {path}"
    );
}
