package ledger

import (
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"towpath.dev/pkg/identity"
)

// dialTimeout bounds one attempt to reach a server.
const dialTimeout = 2 * time.Second

// dialer opens every connection, the first and each reconnect, with the bus key that the identity has at
// that moment: when keys rotate, the bus ends the connections of the old one, and they come back with the
// new. It is a nats.CustomDialer and a nats.InProcessConnProvider.
type dialer struct {
	keys, service string
	inProcess     nats.InProcessConnProvider
	key           atomic.Pointer[identity.BusKey]
	conn          atomic.Pointer[nats.Conn] // nil before the first connection stands
}

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	if err := d.present(); err != nil {
		return nil, err
	}
	return net.DialTimeout(network, address, dialTimeout)
}

// InProcessConn implements nats.InProcessConnProvider.
func (d *dialer) InProcessConn() (net.Conn, error) {
	if err := d.present(); err != nil {
		return nil, err
	}
	return d.inProcess.InProcessConn()
}

// present makes the connection say the identity's present public key. The client library holds the
// connection's lock while it dials, and reads the option under the same lock when it introduces itself.
func (d *dialer) present() error {
	conn := d.conn.Load()
	if conn == nil {
		return nil
	}
	key, err := identity.LoadBusKey(d.keys, d.service)
	if err != nil {
		return fmt.Errorf("connecting again: %w", err)
	}
	d.key.Store(key)
	conn.Opts.Nkey = key.Public
	return nil
}

// sign answers the server's nonce.
func (d *dialer) sign(nonce []byte) ([]byte, error) { return d.key.Load().Sign(nonce) }
