package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
	analysisutil "github.com/argoproj/argo-rollouts/utils/analysis"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

const (
	templatePath = "../../../docs/argo-rollouts/analysis-template.yaml"
	pagePath     = "../../../docs/argo-rollouts.md"
)

func theTemplate(t *testing.T) *v1alpha1.AnalysisTemplate {
	t.Helper()
	template, err := readTemplate(templatePath)
	if err != nil {
		t.Fatal(err)
	}
	return template
}

// standIn answers every request with this status and body, and keeps the last request.
func standIn(t *testing.T, status int, body string) (*httptest.Server, *http.Request) {
	t.Helper()
	asked := new(http.Request)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = *r.Clone(r.Context())
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return server, asked
}

func caseAt(url string) []v1alpha1.Argument {
	return []v1alpha1.Argument{
		argument("gate", "canary"),
		argument("service", "checkout"),
		argument("version", "4.2.0"),
		argument("slogate", url),
	}
}

func TestEachAnswerHasItsPhase(t *testing.T) {
	answer := func(verdict string) string {
		return `{"verdict":"` + verdict + `","checks":[],"id":null,"final":false}`
	}
	for _, c := range []struct {
		name   string
		status int
		body   string
		phase  v1alpha1.AnalysisPhase
	}{
		{"pass", 200, answer("pass"), v1alpha1.AnalysisPhaseSuccessful},
		{"fail", 200, answer("fail"), v1alpha1.AnalysisPhaseFailed},
		{"inconclusive", 200, answer("inconclusive"), v1alpha1.AnalysisPhaseInconclusive},
		{"pending", 200, answer("pending"), v1alpha1.AnalysisPhaseInconclusive},
		{"unknown gate", 404, `{"error":{"code":"not_found"}}`, v1alpha1.AnalysisPhaseError},
		{"unavailable", 503, ``, v1alpha1.AnalysisPhaseError},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, _ := standIn(t, c.status, c.body)
			measured, err := measure(theTemplate(t), caseAt(server.URL))
			if err != nil {
				t.Fatal(err)
			}
			if measured.Phase != c.phase {
				t.Errorf("%s, expected %s (%s)", measured.Phase, c.phase, measured.Message)
			}
			if c.status == 200 && !strings.Contains(measured.Value, `"verdict":`) {
				t.Errorf("the value is %q", measured.Value)
			}
		})
	}
}

func TestNobodyListeningIsAnError(t *testing.T) {
	server, _ := standIn(t, 200, "{}")
	url := server.URL
	server.Close()
	measured, err := measure(theTemplate(t), caseAt(url))
	if err != nil {
		t.Fatal(err)
	}
	if measured.Phase != v1alpha1.AnalysisPhaseError {
		t.Errorf("%s", measured.Phase)
	}
}

// What the Rust test replays where there is no Go.
func TestTheRequestIsTheOneThatIsReplayed(t *testing.T) {
	server, asked := standIn(t, 200, `{"verdict":"pass"}`)
	if _, err := measure(theTemplate(t), caseAt(server.URL)); err != nil {
		t.Fatal(err)
	}
	const uri = "/v1/gates/canary/verdict?service=checkout&environment=production&version=4.2.0"
	if asked.Method != "GET" || asked.RequestURI != uri {
		t.Errorf("%s %s", asked.Method, asked.RequestURI)
	}
	headers := map[string]string{"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}
	for name, value := range headers {
		if got := asked.Header.Get(name); got != value {
			t.Errorf("%s: %q", name, got)
		}
	}
	if len(asked.Header) != len(headers) {
		t.Errorf("headers that are not replayed: %v", asked.Header)
	}
}

func TestAMissingArgumentIsNotMeasured(t *testing.T) {
	_, err := measure(theTemplate(t), []v1alpha1.Argument{argument("service", "checkout")})
	if err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("%v", err)
	}
}

// Argo refuses a metric without an end in a step of a canary, so the page must not show that.
func TestTheMetricHasNoEndOfItsOwn(t *testing.T) {
	metric := theTemplate(t).Spec.Metrics[0]
	if count := metric.EffectiveCount(); count != nil {
		t.Errorf("it ends after %v measurements", count)
	}
}

// The page's rollout gives Argo every argument that the template lacks.
func TestThePagesRolloutFillsTheTemplate(t *testing.T) {
	page, err := os.ReadFile(pagePath)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	snippet, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatalf("%s shows no rollout", pagePath)
	}
	var rollout v1alpha1.Rollout
	if err := yaml.UnmarshalStrict([]byte(snippet), &rollout); err != nil {
		t.Fatal(err)
	}
	const label = "app.kubernetes.io/version"
	rollout.Labels = map[string]string{label: "4.2.0"}
	rollout.Spec.Template.Labels = map[string]string{label: "4.2.0"}
	analysis := rollout.Spec.Strategy.Canary.Analysis
	template := theTemplate(t)
	if name := analysis.Templates[0].TemplateName; name != template.Name {
		t.Errorf("it names the template %q", name)
	}
	replicas := new(appsv1.ReplicaSet)
	args, err := analysisutil.BuildArgumentsForRolloutAnalysisRun(analysis.Args, replicas, replicas, &rollout)
	if err != nil {
		t.Fatal(err)
	}
	_, metrics, err := resolve(template, args)
	if err != nil {
		t.Fatal(err)
	}
	const query = "/v1/gates/canary/verdict?service=checkout&environment=production&version=4.2.0"
	if url := metrics[0].Provider.Web.URL; !strings.HasSuffix(url, query) {
		t.Errorf("%s", url)
	}
}
