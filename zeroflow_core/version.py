"""The version of the package, for itself and for what it writes; package.xml has it too."""

VERSION = "0.1.0"
