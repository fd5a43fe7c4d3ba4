package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestReceivers(t *testing.T) {
	p, err := Parse(FileName, []byte(`
notify:
  - {name: team, urlFile: /etc/towpath/team.url}
  - {name: pager, url: "http://127.0.0.1:8090/hook", kinds: [stuck, approval]}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Receiver{
		{Name: "team", URLFile: "/etc/towpath/team.url", Kinds: NoticeKinds},
		{Name: "pager", URL: "http://127.0.0.1:8090/hook", Kinds: []string{NoticeStuck, NoticeApproval}},
	}
	if !slices.EqualFunc(p.Notify, want, func(a, b Receiver) bool {
		return a.Name == b.Name && a.URL == b.URL && a.URLFile == b.URLFile && slices.Equal(a.Kinds, b.Kinds)
	}) {
		t.Errorf("read %+v", p.Notify)
	}
	if strings.Contains(string(p.Policy.Text()), "team") {
		t.Error("the policy's text, which is in the ledger, names receivers")
	}
}

// A fault never repeats an address.
func TestReceiversFaults(t *testing.T) {
	_, err := Parse(FileName, []byte(`
notify:
  - {name: Team, url: "ftp://host/T0KEN"}
  - {name: twice, url: "https://host/T0KEN", urlFile: /T0KEN}
  - {name: twice, urlFile: relative/path}
  - {name: kinds, url: "https://host/T0KEN", kinds: [everything]}
  - {name: none, url: "https://host/x", kinds: []}
  - {url: "https://host/x", token: x}
  - {name: address, urlFile: "https://host/T0KEN"}
`))
	if err == nil {
		t.Fatal("taken")
	}
	for _, says := range []string{
		"notify[0].name", "notify[0].url: must be https://host/path", "notify[1]: name and one of url and urlFile", "given twice, first on line 4",
		"notify[2].urlFile: must be an absolute path", "notify[3].kinds[0]: must be one of approval, stuck, failed, done, drift, alarm", "notify[4].kinds", "notify[5].token: unknown key", "notify[5]: name and one",
	} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("it does not say %q:\n%v", says, err)
		}
	}
	if strings.Contains(err.Error(), "T0KEN") {
		t.Errorf("it repeats an address:\n%v", err)
	}
}
