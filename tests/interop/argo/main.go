// Asks slogate's gate with the code of Argo Rollouts itself.
//
// It reads the AnalysisTemplate that slogate's documentation offers, lets Argo validate it and
// put the arguments in, runs one measurement of Argo's web or Prometheus metric provider per
// case, and prints what Argo makes of each as one JSON line. A case names the template's arguments:
//
//	argo -template analysis-template.yaml -slogate http://127.0.0.1:9560 \
//	    gate=canary,service=checkout,version=4.2.0
//
// It ends with 0 however the measurements went, and with 1 where the template or a case is wrong.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/argoproj/argo-rollouts/metricproviders/prometheus"
	"github.com/argoproj/argo-rollouts/metricproviders/webmetric"
	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
	analysisutil "github.com/argoproj/argo-rollouts/utils/analysis"
	"github.com/sirupsen/logrus"
	"sigs.k8s.io/yaml"
)

// line is what Argo makes of one case.
type line struct {
	Case    string                 `json:"case"`
	URL     string                 `json:"url"`
	Phase   v1alpha1.AnalysisPhase `json:"phase"`
	Value   string                 `json:"value"`
	Message string                 `json:"message"`
}

func main() {
	path := flag.String("template", "", "the AnalysisTemplate to use")
	slogate := flag.String("slogate", "", "slogate's base URL, the argument of that name in every case")
	flag.Parse()
	if err := run(*path, *slogate, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(path, slogate string, cases []string) error {
	template, err := readTemplate(path)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for _, one := range cases {
		args, err := parseCase(one)
		if err != nil {
			return err
		}
		args = append(args, argument("slogate", slogate))
		measured, err := measure(template, args)
		if err != nil {
			return fmt.Errorf("case %q: %w", one, err)
		}
		measured.Case = one
		if err := out.Encode(measured); err != nil {
			return err
		}
	}
	return nil
}

// readTemplate refuses what the cluster would refuse: fields that the resource does not have,
// and metrics that Argo finds invalid.
func readTemplate(path string) (*v1alpha1.AnalysisTemplate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var template v1alpha1.AnalysisTemplate
	if err := yaml.UnmarshalStrict(text, &template); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if template.Kind != "AnalysisTemplate" || template.APIVersion != v1alpha1.SchemeGroupVersion.String() {
		return nil, fmt.Errorf("%s: a %s of %s, not an AnalysisTemplate of %s",
			path, template.Kind, template.APIVersion, v1alpha1.SchemeGroupVersion)
	}
	if err := analysisutil.ValidateMetrics(template.Spec.Metrics); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &template, nil
}

func parseCase(text string) ([]v1alpha1.Argument, error) {
	var args []v1alpha1.Argument
	for _, pair := range strings.Split(text, ",") {
		name, value, found := strings.Cut(pair, "=")
		if !found {
			return nil, fmt.Errorf("case %q: %q is not name=value", text, pair)
		}
		args = append(args, argument(name, value))
	}
	return args, nil
}

func argument(name, value string) v1alpha1.Argument {
	return v1alpha1.Argument{Name: name, Value: &value}
}

// resolve makes the analysis run that Argo makes of the template, and its metrics with the
// arguments put in.
func resolve(template *v1alpha1.AnalysisTemplate, args []v1alpha1.Argument) (*v1alpha1.AnalysisRun, []v1alpha1.Metric, error) {
	run, err := analysisutil.NewAnalysisRunFromTemplates(
		[]*v1alpha1.AnalysisTemplate{template}, nil, args, nil, nil, nil, nil, "slogate", "", "default")
	if err != nil {
		return nil, nil, err
	}
	var metrics []v1alpha1.Metric
	for _, metric := range run.Spec.Metrics {
		resolved, err := analysisutil.ResolveMetricArgs(metric, run.Spec.Args)
		if err != nil {
			return nil, nil, fmt.Errorf("metric %q: %w", metric.Name, err)
		}
		metrics = append(metrics, *resolved)
	}
	// Argo validates again here: an argument can make a metric invalid.
	return run, metrics, analysisutil.ValidateMetrics(metrics)
}

// provider measures one metric.
type provider interface {
	Run(*v1alpha1.AnalysisRun, v1alpha1.Metric) v1alpha1.Measurement
}

// providerOf is Argo's own provider for the metric, with the address that it asks.
func providerOf(metric v1alpha1.Metric) (provider, string, error) {
	log := *logrus.WithField("metric", metric.Name)
	switch {
	case metric.Provider.Web != nil:
		client, err := webmetric.NewWebMetricHttpClient(metric)
		if err != nil {
			return nil, "", err
		}
		parser, err := webmetric.NewWebMetricJsonParser(metric)
		if err != nil {
			return nil, "", err
		}
		return webmetric.NewWebMetricProvider(log, client, parser), metric.Provider.Web.URL, nil
	case metric.Provider.Prometheus != nil:
		api, err := prometheus.NewPrometheusAPI(metric)
		if err != nil {
			return nil, "", err
		}
		asking, err := prometheus.NewPrometheusProvider(api, log, metric)
		return asking, metric.Provider.Prometheus.Address, err
	}
	return nil, "", fmt.Errorf("metric %q has neither the web nor the Prometheus provider", metric.Name)
}

// measure runs the template's one metric once, as Argo's controller does.
func measure(template *v1alpha1.AnalysisTemplate, args []v1alpha1.Argument) (line, error) {
	run, metrics, err := resolve(template, args)
	if err != nil {
		return line{}, err
	}
	if len(metrics) != 1 {
		return line{}, fmt.Errorf("%d metrics, not one", len(metrics))
	}
	asking, url, err := providerOf(metrics[0])
	if err != nil {
		return line{}, err
	}
	measured := asking.Run(run, metrics[0])
	return line{
		URL:     url,
		Phase:   measured.Phase,
		Value:   measured.Value,
		Message: measured.Message,
	}, nil
}
