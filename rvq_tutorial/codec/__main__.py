import sys

from rvq_tutorial.codec import main

sys.exit(main())
