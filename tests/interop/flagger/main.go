// Asks slogate's Prometheus API with the code of Flagger itself.
//
// It makes Flagger's Prometheus metric provider, checks that the server is online as Flagger does
// when a MetricTemplate is set up, runs each query as a canary's analysis does, and prints what
// Flagger makes of each as one JSON line:
//
//	flagger -address http://127.0.0.1:9560 'vector(1)' 'up'
//
// It ends with 0 however the queries went, and with 1 where the server is not online.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"

	flaggerv1 "github.com/fluxcd/flagger/pkg/apis/flagger/v1beta1"
	"github.com/fluxcd/flagger/pkg/metrics/providers"
)

// line is what Flagger makes of one query.
type line struct {
	Query string  `json:"query"`
	Value float64 `json:"value"`
	Error string  `json:"error"`
}

func main() {
	address := flag.String("address", "", "slogate's base URL")
	flag.Parse()
	if err := run(*address, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address string, queries []string) error {
	template := flaggerv1.MetricTemplateProvider{Type: "prometheus", Address: address}
	provider, err := providers.NewPrometheusProvider(template, nil)
	if err != nil {
		return err
	}
	if online, err := provider.IsOnline(); err != nil || !online {
		return fmt.Errorf("%s is not online: %v", address, err)
	}
	out := json.NewEncoder(os.Stdout)
	for _, query := range queries {
		asked := line{Query: query}
		if asked.Value, err = provider.RunQuery(query); err != nil {
			asked.Error = err.Error()
		}
		if err := out.Encode(asked); err != nil {
			return err
		}
	}
	return nil
}
