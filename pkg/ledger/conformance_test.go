package ledger_test

import (
	"testing"

	"towpath.dev/pkg/ledger/ledgertest"
)

func TestConformance(t *testing.T) {
	ledgertest.Conformance(t, ledgertest.Start(t))
}

func TestConformanceOfASeparateServer(t *testing.T) {
	ledgertest.Conformance(t, ledgertest.Start(t, ledgertest.Separate()))
}

func TestConformanceOfACluster(t *testing.T) {
	t.Parallel()
	l := ledgertest.Start(t, ledgertest.Clustered())
	ledgertest.Conformance(t, l)
	l.Whole()
	t.Run("nobody forges, and nothing stops", func(t *testing.T) { forge(t, l) })
}
