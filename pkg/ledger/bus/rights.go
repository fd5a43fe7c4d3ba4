package bus

import (
	"fmt"
	"slices"
	"strings"

	"towpath.dev/events"
)

// owner is the account that has the streams: the door's and the operator's.
const owner = "BUS"

// Names under which other accounts reach the JetStream API; under its own name the server answers them
// with error 10039.
const (
	ownAPI    = "$JS.API."
	importAPI = "bus.API."
)

// grant is one subject of the owner that one account may use.
type grant struct {
	account string
	subject string // in the owner's account
	local   string // in the importing account; empty: the same
	stream  bool   // the account listens; otherwise it sends requests
	many    bool   // one request has many answers
}

// between are the requests that one service takes from another: everything else that two services have to tell each
// other is an event.
var between = []struct {
	subject  string
	from, to events.Writer
	many     bool // each process of the service answers
}{
	{events.DrainSubject, events.Promote, events.Edge, false},
	{events.InventorySubject, events.Gateway, events.Promote, false},
	{events.RedactSubject, events.Verify, events.Promote, false},
	{events.LinkSubject, events.Notify, events.Gateway, false},
	{events.StateSubject(events.Build), events.Gateway, events.Build, true},
	{events.StateSubject(events.Vet), events.Gateway, events.Vet, true},
	{events.StateSubject(events.Promote), events.Gateway, events.Promote, true},
	{events.StateSubject(events.Verify), events.Gateway, events.Verify, true},
	{events.StateSubject(events.Watch), events.Gateway, events.Watch, true},
	{events.StateSubject(events.Notify), events.Gateway, events.Notify, true},
}

// botAccount returns the name of a bot's account. It can send requests on its own subjects and hear their answers,
// and there is nothing else in it.
func botAccount(bot events.Slug) string { return "BOT_" + string(bot) }

// botSubjects are the ones on which a bot may send requests to the gateway.
func botSubjects(bot events.Slug) string { return "command." + string(bot) + ".>" }

// account returns the name of a service's account.
func account(service events.Writer) string { return strings.ToUpper(string(service)) }

// accounts are the services with an account of their own.
var accounts = []events.Writer{
	events.Gateway, events.Build, events.Vet, events.Promote, events.Verify, events.Watch, events.Edge, events.Notify,
}

// bucketRights says who may read and who may write each bucket. Whoever may write may read.
var bucketRights = map[string]struct{ read, write []events.Writer }{
	events.BucketActors:  {write: []events.Writer{events.Gateway}},
	events.BucketConfig:  {write: []events.Writer{events.Gateway}, read: []events.Writer{events.Promote}},
	events.BucketSecrets: {write: []events.Writer{events.Gateway}, read: []events.Writer{events.Promote}},
	events.BucketPinned:  {write: []events.Writer{events.Gateway, events.Promote}},
	events.BucketTries:   {read: []events.Writer{events.Gateway, events.Watch, events.Build, events.Vet, events.Promote, events.Verify}},
	events.BucketAside: {read: []events.Writer{
		events.Gateway, events.Watch, events.Build, events.Vet, events.Promote, events.Verify, events.Notify,
	}},
	events.BucketDiscovery: {write: []events.Writer{events.Promote}, read: []events.Writer{events.Edge, events.Gateway, events.Verify, events.Watch}},
	events.BucketIssued:    {write: []events.Writer{events.Promote}},
	events.BucketNotify:    {write: []events.Writer{events.Notify}},
}

// grants returns everything that one service's account may do on the bus, in a fixed order. What is not
// here reaches nobody.
func grants(service events.Writer, epoch int) []grant {
	stream := events.StreamName(epoch)
	g := []grant{
		{subject: ownAPI + "DIRECT.GET." + stream, many: true},
		{subject: events.LiveSubjects, stream: true},
	}
	if slices.Contains(events.Writers, service) {
		g = append(g,
			grant{subject: "append." + string(service) + ".>"},
			put(service, "log."+string(service)+".>"))
	}
	if service != events.Edge {
		// What a service says of messages that it cannot settle; no other can say it in its place.
		g = append(g,
			put(service, "$KV."+events.BucketTries+"."+string(service)+".>"),
			put(service, "$KV."+events.BucketAside+"."+string(service)+".>"))
	}
	for _, c := range events.Consumers {
		if c.Service == service {
			g = append(g, consume(stream, c.Durable)...)
		}
	}
	for _, name := range []string{
		events.BucketActors, events.BucketConfig, events.BucketDiscovery, events.BucketIssued, events.BucketNotify, events.BucketPinned, events.BucketSecrets,
		events.BucketTries, events.BucketAside,
	} {
		g = append(g, bucketGrants(service, name)...)
	}
	switch service {
	case events.Gateway:
		g = append(g,
			grant{subject: events.StateSubject(events.Ledger), many: true},
			grant{subject: ownAPI + "DIRECT.GET." + events.LogStream, many: true},
			grant{subject: "live.log.>", stream: true},
			grant{subject: events.SealStatusSubject},
			grant{subject: events.SealNowSubject},
			grant{subject: events.SealHashesSubject})
	case events.Watch:
		g = append(g, consume(events.TimerStream, "timers")...)
		g = append(g, consume(events.AdvisoryStream, "advisories")...)
		g = append(g, put(service, "timer.set.>"))
	}
	for i := range g {
		g[i].account = account(service)
		if rest, ok := strings.CutPrefix(g[i].subject, ownAPI); ok {
			g[i].local = importAPI + rest
		}
	}
	return g
}

// put returns the right to write to a stream beside the ledger, under the subject's own name. What is written
// goes through the door, which takes every header away that the bus would obey.
func put(service events.Writer, subject string) grant {
	return grant{subject: "put." + string(service) + "." + subject, local: subject}
}

// consume returns what a worker needs of its durable consumer: pull, look at it, settle.
func consume(stream, durable string) []grant {
	return []grant{
		{subject: fmt.Sprintf("%sCONSUMER.MSG.NEXT.%s.%s", ownAPI, stream, durable), many: true},
		{subject: fmt.Sprintf("%sCONSUMER.INFO.%s.%s", ownAPI, stream, durable)},
		{subject: fmt.Sprintf("$JS.ACK.%s.%s.>", stream, durable)},
	}
}

func bucketGrants(service events.Writer, name string) []grant {
	rights := bucketRights[name]
	writes := slices.Contains(rights.write, service)
	if !writes && !slices.Contains(rights.read, service) {
		return nil
	}
	g := []grant{
		{subject: ownAPI + "DIRECT.GET.KV_" + name, many: true},
		{subject: "live.kv." + name + ".>", stream: true},
	}
	if writes {
		g = append(g, put(service, "$KV."+name+".>"))
	}
	return g
}

// ownerRights are the permissions of the two users in the owner's account.
func ownerRights(service events.Writer, epoch int) (publish, subscribe []string) {
	if service == events.Ledger {
		return []string{
				fmt.Sprintf("event.%d.>", epoch),
				"append.ledger.>",
				ownAPI + "DIRECT.GET." + events.StreamName(epoch),
				"log.>", "$KV.>", "timer.set.>",
				ownAPI + "DIRECT.GET.KV_" + events.BucketAside,
			}, []string{
				"append.>", "put.>", "_INBOX.>", events.LiveSubjects, "seal.*", events.StateSubject(events.Ledger),
			}
	}
	return []string{
		ownAPI + "INFO",
		ownAPI + "STREAM.CREATE.*", ownAPI + "STREAM.UPDATE.*", ownAPI + "STREAM.INFO.*", ownAPI + "STREAM.NAMES",
		ownAPI + "CONSUMER.CREATE.>", ownAPI + "CONSUMER.DURABLE.CREATE.>", ownAPI + "CONSUMER.INFO.>",
		// Backup and restore. A stream that is there cannot be restored over.
		ownAPI + "DIRECT.GET." + events.StreamName(epoch),
		ownAPI + "STREAM.SNAPSHOT.*", "$JS.SNAPSHOT.ACK.>", ownAPI + "STREAM.RESTORE.*", "$JS.SNAPSHOT.RESTORE.>",
		events.SealStatusSubject, events.SealNowSubject, events.SealResumeSubject,
	}, []string{"_INBOX.>"}
}
