// Package ci checks what templates/ci gives to build pipelines: the structure of the
// GitHub action and of the GitLab template, their scripts and the installer, which
// are run with the real program against a cloud, and every call of the Terraform
// contract against a real API.
package ci
