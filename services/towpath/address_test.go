package towpath

import (
	"net"
	"strings"
	"testing"
	"time"
)

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func anyPorts(data string) Config {
	return Config{Data: data, Listen: "127.0.0.1:0", EdgeListen: "127.0.0.1:0", RegistryListen: "127.0.0.1:0"}
}

func TestTakenPortsAreAllNamed(t *testing.T) {
	gateway, edge := listen(t, "127.0.0.1:0").Addr().String(), listen(t, "127.0.0.1:0").Addr().String()
	cfg := Config{Data: t.TempDir(), Listen: gateway, EdgeListen: edge, RegistryListen: "127.0.0.1:0"}
	err := cfg.settleAddresses()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{gateway, edge, "in use", "--listen", "--edge-listen", "gateway", "edge"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

func TestPortsOfTheStartBeforeAreKept(t *testing.T) {
	data := t.TempDir()
	first := anyPorts(data)
	if err := first.settleAddresses(); err != nil {
		t.Fatal(err)
	}
	kept := map[string]string{}
	for _, a := range first.addresses() {
		kept[a.name] = *a.address
	}
	if err := (Place{Listen: kept}).write(data); err != nil {
		t.Fatal(err)
	}
	again := anyPorts(data)
	if err := again.settleAddresses(); err != nil {
		t.Fatal(err)
	}
	if again != first {
		t.Errorf("got %+v, want %+v", again, first)
	}

	// The gateway may move; the registry is in the names of images and may not.
	listen(t, first.Listen)
	moved := anyPorts(data)
	if err := moved.settleAddresses(); err != nil || moved.Listen == first.Listen {
		t.Errorf("gateway at %s: %v", moved.Listen, err)
	}
	listen(t, first.RegistryListen)
	stuck := anyPorts(data)
	if err := stuck.settleAddresses(); err == nil || !strings.Contains(err.Error(), first.RegistryListen) {
		t.Errorf("registry: %v", err)
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	err := Config{Listen: "nowhere", EdgeListen: "127.0.0.1:70000", DrainTimeout: -1, AckWait: time.Millisecond}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"--data", "--listen", "--edge-listen", "drain", "--ack-wait"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if err := (Config{Data: "x"}).Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
}
