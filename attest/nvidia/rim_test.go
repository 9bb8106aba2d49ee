package nvidia

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/confidential-cloud/phala/attest/collateral"
	"github.com/confidential-cloud/phala/cvm"
)

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What libxml2 writes for the same document (comments taken out). DO NOT CHANGE.
func TestCanonicalVectors(t *testing.T) {
	root, err := parseXML(testdata(t, "c14n-in.xml"))
	if err != nil {
		t.Fatal(err)
	}
	for method, file := range map[string]string{c14n10: "c14n-out-inclusive.xml", c14n11: "c14n-out-inclusive.xml", c14nExc: "c14n-out-exclusive.xml"} {
		got, ok := canonical(root, nil, method)
		if want := testdata(t, file); !ok || !bytes.Equal(got, want) {
			t.Errorf("%s:\n%s\nwant\n%s", method, got, want)
		}
		// What is canonical is its own canonical form.
		again, err := parseXML(got)
		if err != nil {
			t.Fatal(err)
		}
		if twice, _ := canonical(again, nil, method); !bytes.Equal(twice, got) {
			t.Errorf("%s is not idempotent", method)
		}
	}
	if _, ok := canonical(root, nil, "http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments"); ok {
		t.Error("an unknown method is accepted")
	}
}

// Documents that xmlsec1 signed, in each canonicalisation, with comments, prefixes,
// entities and attributes out of order. The keys are self-made. DO NOT CHANGE.
func TestSignedByAnother(t *testing.T) {
	for _, name := range []string{"rim-c14n10.xml", "rim-c14n11.xml", "rim-exclusive.xml"} {
		doc := testdata(t, name)
		r, err := ParseRIM(doc)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		chain, err := collateral.ParseDER(r.sig.chain, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.sig.verify(chain[0]); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r.Version != "550.54.15" || r.Name != "self-made & signed" || len(r.Golden) != 1 || r.Inactive != 1 || r.Golden[0][1][0] != 0xbb {
			t.Fatalf("%+v", r)
		}
		// A comment is no content; anything else is.
		if _, err := ParseRIM(bytes.Replace(doc, []byte("<!-- a comment -->"), []byte("<!-- another -->"), 1)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for old, repl := range map[string]string{
			"550.54.15": "550.54.16", `name="self`: `name="sElf`, `active="False"`: `active="True"`, "SHA384:Hash0=\"aa": "SHA384:Hash0=\"ab",
			`<Entity`: `<Entity a="b"`, "<Payload": " <Payload", "xml:lang=\"en-US\"": "",
		} {
			if _, err := ParseRIM(bytes.Replace(doc, []byte(old), []byte(repl), 1)); err == nil && bytes.Contains(doc, []byte(old)) {
				t.Errorf("%s: %q for %q is accepted", name, repl, old)
			}
		}
	}
}

func TestRIMRefusals(t *testing.T) {
	good := testdata(t, "rim-exclusive.xml")
	sub := func(old, repl string) []byte {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("no %q in the document", old)
		}
		return bytes.Replace(good, []byte(old), []byte(repl), 1)
	}
	for name, b := range map[string][]byte{
		"empty": nil, "not XML": []byte("x"), "too large": make([]byte, MaxRIM+1), "cut": good[:len(good)/2],
		"a document type":     sub("<!-- self-made", `<!DOCTYPE x [<!ENTITY e "v">]><!-- self-made`),
		"CDATA":               sub("<!-- a comment -->", "<![CDATA[x]]>"),
		"an instruction":      sub("<!-- a comment -->", "<?x y?>"),
		"an entity":           sub("&amp;", "&e;"),
		"a second root":       append(bytes.Clone(good), []byte("<x/>")...),
		"another root":        sub("SoftwareIdentity", "SoftwareIdentitx"),
		"no signature":        []byte(`<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd"/>`),
		"signed with RSA":     sub("xmldsig-more#ecdsa-sha384", "xmldsig-more#rsa-sha384"),
		"HMAC":                sub("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384", "http://www.w3.org/2000/09/xmldsig#hmac-sha1"),
		"SHA-1":               sub("http://www.w3.org/2001/04/xmldsig-more#sha384\"/><ds:DigestValue", "http://www.w3.org/2000/09/xmldsig#sha1\"/><ds:DigestValue"),
		"over a part":         sub(`URI=""`, `URI="#x"`),
		"an XSLT transform":   sub("http://www.w3.org/2000/09/xmldsig#enveloped-signature", "http://www.w3.org/TR/1999/REC-xslt-19991116"),
		"an unbound prefix":   sub("<Entity", "<q:Entity"),
		"an attribute twice":  sub("<Entity name=", `<Entity name="x" name=`),
		"not UTF-8":           sub("self-made &amp;", "self\xff&amp;"),
		"a control character": sub("self-made &amp;", "self\x01&amp;"),
		"UTF-16 declared":     sub(`encoding="UTF-8"`, `encoding="UTF-16"`),
		"too deep":            []byte(deep(maxDepth + 1)),
	} {
		if _, err := ParseRIM(b); cvm.CodeOf(err) != cvm.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func deep(n int) string {
	var a, b string
	for range n {
		a, b = a+"<a>", b+"</a>"
	}
	return a + b
}

// No panic, and what is read is what is canonical: writing it and reading it again
// gives the same bytes.
func FuzzParseRIM(f *testing.F) {
	for _, n := range []string{"c14n-in.xml", "rim-c14n10.xml", "rim-exclusive.xml"} {
		f.Add(testdata(f, n))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = ParseRIM(b)
		root, err := parseXML(b)
		if err != nil {
			if cvm.CodeOf(err) != cvm.Invalid {
				t.Fatal(err)
			}
			return
		}
		for _, m := range []string{c14n10, c14nExc} {
			once, _ := canonical(root, nil, m)
			again, err := parseXML(once)
			if err != nil {
				t.Fatalf("%v\n%q", err, once)
			}
			if twice, _ := canonical(again, nil, m); !bytes.Equal(once, twice) {
				t.Fatalf("not canonical:\n%q\n%q", once, twice)
			}
		}
	})
}
