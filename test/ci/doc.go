// Package ci checks what templates/ci gives to build pipelines: the structure of the
// GitHub action and of the GitLab template, and the installer, which is run.
package ci
